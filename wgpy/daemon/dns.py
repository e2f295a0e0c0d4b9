"""Sets the host's name servers while a tunnel is up, by systemd-resolved if it runs, or else by resolvconf."""

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
UMASK: Final = 0o022  # for programs that write files for all users, such as Debian's resolvconf; our units have 0077
_set_by: dict[str, str] = {}  # by interface, the tool that was used
_INTERFACE_ORDER: Final = Path("/etc/resolvconf/interface-order")


def set_dns(interface: str, servers: Sequence[IPv4Address | IPv6Address | str], search: Sequence[str] = ()) -> None:
    """Make the host use `servers` for all names, and `search` for short ones. Does nothing without servers.

    Raises NetworkError if there is no tool, or each of them fails.
    """
    if not servers:
        return
    wrong = []
    before = _set_by.get(interface)  # tried first: otherwise its servers would stay beside the new ones
    for tool in sorted(tools(), key=lambda tool: tool != before):
        try:
            _set(tool, interface, [str(server) for server in servers], search)
        except NetworkError as error:
            wrong.append(str(error))
            with suppress(NetworkError):  # whatever it did set
                _unset(tool, interface)
        else:
            _set_by[interface] = tool
            return
    reason = (
        "; ".join(wrong)
        or f"cannot set DNS servers for {interface}: neither systemd-resolved nor resolvconf is installed"
    )
    raise NetworkError(f"{reason}; install openresolv or systemd-resolved, or delete DNS from the configuration")


def unset_dns(interface: str) -> None:
    """Undo `set_dns`; the interface must still exist. Raises NetworkError if a tool fails."""
    known = _set_by.pop(interface, "")  # unknown after a daemon was killed
    with ExitStack() as each:  # runs all of them, even if one fails, as resolvectl does without the interface
        for tool in reversed([known] if known else tools()):
            each.callback(_unset, tool, interface)


def _set(tool: str, interface: str, addresses: Sequence[str], search: Sequence[str]) -> None:
    if tool == "resolvectl":
        _run("set", interface, ["resolvectl", "dns", interface, *addresses])
        # ~. routes all names to these servers, like resolvconf's -x.
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
    """The tools that can set name servers here, in the order to try them: "resolvectl", "resolvconf"."""
    return ["resolvectl"] * _resolved_runs() + ["resolvconf"] * bool(shutil.which("resolvconf"))


def _resolved_runs() -> bool:
    if not (shutil.which("resolvectl") and shutil.which("systemctl")):
        return False
    active = ["systemctl", "is-active", "--quiet", "systemd-resolved"]
    return subprocess.run(active, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _record(interface: str) -> str:
    """The name of resolvconf's record. Debian's sorts records by name, so use the first prefix it lists: `tun.wg0`.

    openresolv has no such order. If `resolvconf` is a symbolic link, it is resolvectl under another name.
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
