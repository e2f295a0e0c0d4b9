"""Name servers for as long as the tunnel is up: through systemd-resolved where it runs, else through resolvconf."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from wgpy.errors import NetworkError

_TIMEOUT: Final = 30.0  # seconds for a tool that hangs
UMASK: Final = 0o022  # for programs that write what all users read, as Debian's resolvconf does; our units have 0077
_set_by: dict[str, str] = {}  # the tool that set an interface's
_INTERFACE_ORDER: Final = Path("/etc/resolvconf/interface-order")


def set_dns(interface: str, servers: Sequence[IPv4Address | IPv6Address | str], search: Sequence[str] = ()) -> None:
    """Resolve every name by `servers`, completing short ones from `search`; without servers nothing is done.

    Raises NetworkError: no tool, or one that fails.
    """
    if not servers:
        return
    wrong = []
    before = _set_by.get(interface)  # goes first, for what it set would stay beside what another tool sets
    for tool in sorted(tools(), key=lambda tool: tool != before):
        try:
            _set(tool, interface, [str(server) for server in servers], search)
        except NetworkError as error:
            wrong.append(str(error))
            with suppress(NetworkError):  # what of it was set
                _unset(tool, interface)
        else:
            _set_by[interface] = tool
            return
    reason = (
        "; ".join(wrong) or f"cannot set DNS servers for {interface}: neither systemd-resolved nor resolvconf is there"
    )
    raise NetworkError(f"{reason}; install openresolv or systemd-resolved, or take DNS out of the configuration")


def unset_dns(interface: str) -> None:
    """Undo `set_dns`, while the interface still exists. Raises NetworkError where the tool fails."""
    known = _set_by.pop(interface, "")  # not by a daemon that was killed
    with (
        ExitStack() as each
    ):  # if one tool fails, as resolvectl does without the interface, the next has its turn still
        for tool in reversed([known] if known else tools()):
            each.callback(_unset, tool, interface)


def _set(tool: str, interface: str, addresses: Sequence[str], search: Sequence[str]) -> None:
    if tool == "resolvectl":
        _run("set", interface, ["resolvectl", "dns", interface, *addresses])
        # The routing domain of all names: what resolvconf's -x asks for.
        _run("set", interface, ["resolvectl", "domain", interface, *search, "~."])
    else:
        lines = [f"nameserver {address}\n" for address in addresses]
        lines += [f"search {' '.join(search)}\n"] if search else []
        _run("set", interface, ["resolvconf", "-a", _record(interface), "-m", "0", "-x"], "".join(lines))


def _unset(tool: str, interface: str) -> None:
    if tool == "resolvectl":
        _run("unset", interface, ["resolvectl", "revert", interface])
    else:
        _run("unset", interface, ["resolvconf", "-d", _record(interface), "-f"])


def tools() -> list[str]:
    """What may set name servers here, "resolvectl" before "resolvconf": the next one where one fails."""
    return ["resolvectl"] * _resolved_runs() + ["resolvconf"] * bool(shutil.which("resolvconf"))


def _resolved_runs() -> bool:
    if not (shutil.which("resolvectl") and shutil.which("systemctl")):
        return False
    active = ["systemctl", "is-active", "--quiet", "systemd-resolved"]
    return subprocess.run(active, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _record(interface: str) -> str:
    """The name of resolvconf's record. Debian's orders records by name: take the first prefix it lists, as `tun.wg0`.

    openresolv has no such order, and where `resolvconf` is a symbolic link it is resolvectl under that name.
    """
    program = shutil.which("resolvconf")
    if program and not Path(program).is_symlink() and _INTERFACE_ORDER.is_file():
        prefix = re.search(r"^([A-Za-z0-9-]+)\*$", _INTERFACE_ORDER.read_text(), re.MULTILINE)
        if prefix:
            return f"{prefix[1]}.{interface}"
    return interface


def _run(verb: str, interface: str, command: list[str], text: str = "") -> None:
    step = f"cannot {verb} DNS servers for {interface}: {command[0]}"
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False, umask=UMASK
        )
    except subprocess.TimeoutExpired:
        raise NetworkError(f"{step} did not finish within {_TIMEOUT:.0f} seconds") from None
    except OSError as error:
        raise NetworkError(f"{step}: {error.strerror}") from error
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise NetworkError(f"{step}: {reason}")
