"""Cleaning up after a daemon that was killed: policy rules, the barrier route, firewall rules and DNS.

The interface, its addresses and the routes through it vanish with the process. The daemon records everything else that
it sets in a file below /run, which does not survive a reboot. From it, the next daemon of that name, or `wgpy down`,
removes exactly what was left. Until then the barrier stands: traffic meant for the tunnel does not leak elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from wgpy.daemon import dns, firewall
from wgpy.daemon.files import RUN_DIRECTORY, read_own, replace_own
from wgpy.errors import NetworkError
from wgpy.net.netlink import Barrier, Netlink, Rule

NAMESPACE: Final = Path("/proc/self/ns/net")

Entry = Rule | Barrier | int | str  # a policy rule, a barrier route, the IP version of firewall rules, "mss" or "dns"


class Leftovers:
    """Records what the daemon of the interface `name` has set, until it is undone, in its network namespace."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path = RUN_DIRECTORY / f"{name}.left"
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Record something that is about to be set, or was just set."""
        self._entries.append(entry)
        self._write()

    def undo(self, entry: Entry) -> None:
        """Undo an entry and delete its record, which is deleted even if this fails. Raises NetworkError."""
        with suppress(ValueError):
            self._entries.remove(entry)
        self._write()
        if isinstance(entry, Rule):
            with Netlink() as netlink:
                netlink.delete_rule(entry)
        elif isinstance(entry, Barrier):
            with Netlink() as netlink:
                netlink.delete_barrier(entry)
        elif isinstance(entry, int):
            firewall.remove(self._name, entry)
        elif entry == "mss":
            firewall.remove_clamp(self._name)
        else:
            dns.unset_dns(self._name)

    def clear(self, say: Callable[[str], None]) -> bool:
        """Undo what a killed daemon left, and report each step by `say`. Returns whether there was anything."""
        self._entries = self._read()
        left = self._entries[::-1]
        for entry in left:
            say(f"clean up after a killed daemon: {_described(entry, self._name)}")
            try:
                self.undo(entry)
            except NetworkError as error:
                say(f"{error}; continuing")
        return bool(left)

    def _read(self) -> list[Entry]:
        try:
            noted = json.loads(read_own(self._path))
            if noted["namespace"] != NAMESPACE.stat().st_ino:
                return []
            return [_entry(noted_entry) for noted_entry in noted["entries"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _write(self) -> None:
        with suppress(OSError):  # without the record, only the cleanup after a kill is lost
            if not self._entries:
                self._path.unlink(missing_ok=True)
                return
            noted = {"namespace": NAMESPACE.stat().st_ino, "entries": self._entries}
            replace_own(self._path, json.dumps(noted).encode())


def _entry(noted: list[Any] | int | str) -> Entry:
    if isinstance(noted, list):
        return Barrier(*noted) if len(noted) == len(Barrier._fields) else Rule(*noted)
    return noted


def _described(entry: Entry, name: str) -> str:
    if isinstance(entry, Rule | Barrier):
        return str(entry)
    if isinstance(entry, int):
        return firewall.rules(name, entry)
    return firewall.clamp_rules(name) if entry == "mss" else f"DNS of {name}"
