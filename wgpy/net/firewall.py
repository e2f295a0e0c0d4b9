"""The firewall's rules that go with a default route through the tunnel: those that wg-quick(8) would make.

They drop what is sent to the tunnel's own addresses from outside the tunnel, so that nobody on the local network can
probe or spoof connections inside it (CVE-2019-14899), and carry the mark of the tunnel's datagrams over to their
answers, so that strict reverse path filtering finds the way they came. By nft, and where it is missing by iptables.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from wgpy.errors import NetworkError

_FAMILIES: Final = {4: "ip", 6: "ip6"}
_IPTABLES: Final = {4: "iptables", 6: "ip6tables"}
_TIMEOUT: Final = 30.0  # seconds


def rules(name: str, version: int) -> str:
    """What a person may call the rules of one family for the interface `name`."""
    if shutil.which("nft"):
        return f"nft table {_FAMILIES[version]} wg-quick-{name}"
    return f"{_IPTABLES[version]} rules for {name}"


def is_there() -> bool:
    """Whether this machine has nft or iptables."""
    return any(map(shutil.which, ("nft", "iptables-restore")))


def replace(name: str, version: int, addresses: Iterable[IPv4Interface | IPv6Interface], mark: int) -> None:
    """Guard one family's addresses of the interface `name`, and carry `mark` over, in place of any guard before.

    Raises NetworkError.
    """
    guarded = [str(address.ip) for address in addresses if address.version == version]
    if not shutil.which("nft"):
        comment = _comment(name)
        spoofed = f"! -i {name} -m addrtype ! --src-type LOCAL -j DROP {comment}"
        _restore(
            version,
            name,
            raw=[f"-I PREROUTING -d {address} {spoofed}" for address in guarded],
            mangle=[
                f"-I POSTROUTING -m mark --mark {mark} -p udp -j CONNMARK --save-mark {comment}",
                f"-I PREROUTING -p udp -j CONNMARK --restore-mark {comment}",
            ],
        )
        return
    family, table = _FAMILIES[version], f"table {_FAMILIES[version]} wg-quick-{name}"
    guards = "".join(
        f'iifname != "{name}" {family} daddr {address} fib saddr type != local drop; ' for address in guarded
    )
    script = (
        f"{table} {{}}\n"
        f"delete {table}\n"
        f"{table} {{\n"
        f"chain preraw {{ type filter hook prerouting priority -300; {guards}}}\n"
        "chain premangle { type filter hook prerouting priority -150; meta l4proto udp meta mark set ct mark; }\n"
        "chain postmangle { type filter hook postrouting priority -150; "
        f"meta l4proto udp meta mark {mark} ct mark set meta mark; }}\n"
        "}\n"
    )
    _run(["nft", "-f", "-"], script)


def remove(name: str, version: int) -> None:
    """Take one family's rules of the interface `name` away again. Raises NetworkError."""
    if shutil.which("nft"):
        _run(["nft", "-f", "-"], f"delete table {_FAMILIES[version]} wg-quick-{name}\n")
    else:
        _restore(version, name, raw=[], mangle=[])


def _comment(name: str) -> str:
    """By which wg-quick, and we, know a rule of iptables again."""
    return f'-m comment --comment "wg-quick(8) rule for {name}"'


def _restore(version: int, name: str, **tables: list[str]) -> None:
    """Put rules into tables of iptables in the place of all that are there for the interface."""
    program = _IPTABLES[version]
    script = ""
    for table, added in tables.items():
        present = _run([f"{program}-save", "-t", table]).splitlines()
        removed = [f"-D{rule[2:]}" for rule in present if rule.startswith("-A") and _comment(name) in rule]
        script += "\n".join([f"*{table}", *removed, *added, "COMMIT\n"])
    _run([f"{program}-restore", "-n"], script)


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise NetworkError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout
