"""The gateway's nftables table in the kernel, by the program nft.

Debian's Python bindings are not on PyPI, and a call of nft takes a few milliseconds.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from wgpy.daemon.firewall import run
from wgpy.errors import NetworkError
from wgpy.gateway.enforcement import ruleset
from wgpy.gateway.enforcement.generation import generation
from wgpy.gateway.enforcement.notices import UNKNOWN
from wgpy.gateway.policy.compiler import Compiled
from wgpy.gateway.policy.destinations import Address, Network
from wgpy.gateway.policy.portal import Service
from wgpy.gateway.policy.routes import Route

_LASTING: Final = ("handle", "policy", "flags")
_REMEMBERED: Final = 64  # processes of nft: the kernel tells of their changes while they run, or soon after


class Passed(NamedTuple):
    """What one address with a session sent or received, and how long the session lasts."""

    packets: int
    bytes: int
    seconds_left: float


class Firewall:
    """The table of a gateway on one interface. Every method raises NetworkError if nft is missing or refuses.

    `group` is that of NFLOG for `wgpy.gateway.enforcement.notices`.
    """

    def __init__(self, interface: str, group: int) -> None:
        if shutil.which("nft") is None:
            raise NetworkError("nft is not installed: on Debian, apt-get install nftables")
        self._interface = interface
        self._group = group
        self._made: ruleset.Present | None = None
        self._outline: list[list[Any]] = []  # of the table that was made
        self._seen: int | None = None  # the generation of nftables in which it was seen to be so
        self._ours: deque[int] = deque(maxlen=_REMEMBERED)  # the last processes of nft that changed it for us
        self._is_touched = False  # somebody else has changed it
        self._table = ruleset.table(interface)

    @property
    def name(self) -> str:
        """The name of the table, in the family inet."""
        return self._words()[1]

    def exists(self) -> bool:
        """Whether the table is there, and as it was made here.

        Whoever restarts nftables.service removes all tables, and may load an old copy of this one.
        """
        if self._is_touched:
            return False
        now = generation()
        if self._made and now == self._seen:
            return True
        try:
            is_ours = self._is_there() and (not self._made or self._outline == self._listed_outline())
        except NetworkError:  # Debian 12's nft crashes where somebody has made the table dormant
            return False
        self._seen = now if is_ours else None
        return is_ours

    def changed_by(self, ports: set[int]) -> bool:
        """Take note of who has changed the table, as `wgpy.gateway.enforcement.notices.Changes` says.

        Returns whether that was, or may have been, somebody else: then `exists` says whether the table is as it was.
        """
        others = ports - {*self._ours}
        self._is_touched |= bool(others - {UNKNOWN})
        return bool(others)

    def replace(
        self,
        pools: Iterable[Network],
        compiled: Compiled,
        routes: Iterable[Route],
        services: Iterable[Service] = (),
        *,
        log_denied: bool = False,
    ) -> bool:
        """Put a policy in force in one transaction, in the place of the one before. Sessions go on.

        The devices that `compiled` knows reach `services` without a session. With `log_denied`, what the rules deny
        goes to NFLOG, too. If the table was gone, or somebody else has changed it, it is made anew, without sessions;
        returns whether it was.
        """
        is_ours = bool(self._made) and self.exists()
        anew = (bool(self._made) or self._is_touched) and not is_ours
        present = ruleset.Present()
        if self._made and is_ours:
            present = self._made
        elif not anew:
            try:
                present = self._present()
            except NetworkError:  # as in `exists`; if nft does not work at all, it says so below
                anew = True
        self._made, self._is_touched = None, False
        script = ruleset.replacement(
            self._interface, self._group, pools, compiled, routes, services, present, log_denied=log_denied, anew=anew
        )
        try:
            self._apply(script)
        except NetworkError:
            self._is_touched = anew
            raise
        now = generation()
        self._made, self._outline, self._seen = ruleset.made(script), self._listed_outline(), now
        return anew

    def admit(self, opened: Mapping[Address, float], closed: Iterable[Address] = ()) -> None:
        """Begin and end sessions of addresses, in one transaction.

        Those in `opened` have one for so many seconds, at least one: the kernel ends it then. From now on no packet
        passes from or to those in `closed`.
        """
        self._apply(ruleset.closing(self._interface, closed) + ruleset.opening(self._interface, opened))

    def sent(self) -> dict[Address, Passed]:
        """What came from each address that has a session."""
        return self._passed("from")

    def received(self) -> dict[Address, Passed]:
        """What went to each address that has a session."""
        return self._passed("to")

    def dropped(self) -> dict[str, int]:
        """How many packets were dropped since the table was made, by reason."""
        counted = self._counted()
        counted.pop(ruleset.UNLOGGED, None)  # which a table of an older version does not have
        return counted

    def unlogged(self) -> int:
        """How many denied packets were not logged, because there were too many in a second."""
        return self._counted().get(ruleset.UNLOGGED, 0)

    def remove(self) -> None:
        """Remove the table: then nothing is kept back any more."""
        self._made = None
        self._apply(f"add table {self._table}\ndelete table {self._table}\n")

    def _apply(self, script: str) -> None:
        before = generation()
        run(["nft", "-f", "-"], script, self._ours.append)
        is_only_ours = self._seen == before and generation() == before + 1
        self._seen = before + 1 if is_only_ours else None

    def _counted(self) -> dict[str, int]:
        return {
            each["name"]: each["packets"]
            for each in self._listed("counter", "list", "counters", "table", *self._words())
        }

    def _is_there(self) -> bool:
        return f"table {self._table}" in run(["nft", "list", "tables"]).splitlines()

    def _listed_outline(self) -> list[list[Any]]:
        """Of each part of the table what it cannot keep if it changes, but for elements of sets and counts.

        A handle is a number that no other part of the table ever has.
        """
        parts = (part for entry in _json("-t", "list", "table", *self._words()) for part in entry.values())
        return [[part.get(key) for key in _LASTING] for part in parts]

    def _present(self) -> ruleset.Present:
        if not self._is_there():
            return ruleset.Present()
        names: dict[str, list[str]] = {"chain": [], "map": []}
        for entry in _json("-t", "list", "table", *self._words()):
            for kind, found in names.items():
                if kind in entry:
                    found.append(entry[kind]["name"])
        return ruleset.Present(names["chain"], names["map"])

    def _passed(self, target: str) -> dict[Address, Passed]:
        return {
            ip_address(element["val"]): Passed(
                element["counter"]["packets"], element["counter"]["bytes"], float(element.get("expires", 0))
            )
            for version in (4, 6)
            for element in map(_element, self._elements(f"{target}{version}"))
        }

    def _elements(self, target: str) -> list[Any]:
        (found,) = self._listed("set", "list", "set", *self._words(), target)
        return list(found.get("elem", ()))

    def _listed(self, kind: str, *command: str) -> Iterator[dict[str, Any]]:
        return (entry[kind] for entry in _json(*command) if kind in entry)

    def _words(self) -> list[str]:
        return self._table.split()


def _element(each: Any) -> dict[str, Any]:
    found: dict[str, Any] = each["elem"] if isinstance(each, dict) else {"val": each}
    return found


def _json(*command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(["nft", "-j", *command]))["nftables"]
    return found
