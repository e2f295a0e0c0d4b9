"""The firewall's rules that go with a default route through the tunnel: those that wg-quick(8) would make.

They drop what is sent to the tunnel's own addresses from outside the tunnel, so that nobody on the local network can
probe or spoof connections inside it (CVE-2019-14899), and carry the mark of the tunnel's datagrams over to their
answers, so that strict reverse path filtering finds the way they came. By nft, and where it is missing or fails by
iptables.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from wgpy.errors import NetworkError

_FAMILIES: Final = {4: "ip", 6: "ip6"}
_IPTABLES: Final = {4: "iptables", 6: "ip6tables"}
_TIMEOUT: Final = 30.0  # seconds


def find_tool() -> tuple[str, str]:
    """The first of "nft" and "iptables" that works, else nothing; and what is wrong with those before it.

    Each is tried with rules as `replace` makes them, which the kernel checks and does not take: it may lack a module.
    """
    trials: dict[str, Callable[[], object]] = {
        "nft": lambda: _run(["nft", "-c", "-f", "-"], _nft_script("wgpy-trial", 4, ["192.0.2.1"], 1)),
        "iptables-restore": lambda: _restore(4, *_iptables_rules("wgpy-trial", ["192.0.2.1"], 1), "--test"),
    }
    wrong = []
    for program in filter(shutil.which, trials):
        try:
            trials[program]()
        except NetworkError as error:
            wrong.append(str(error))
        else:
            return program.partition("-")[0], "; ".join(wrong)
    return "", "; ".join(wrong) or "neither nft nor iptables is there"


_found: Final = cache(find_tool)


def rules(name: str, version: int) -> str:
    """What a person may call the rules of one family for the interface `name`."""
    if _found()[0] == "nft":
        return f"nft table {_FAMILIES[version]} wg-quick-{name}"
    return f"{_IPTABLES[version]} rules for {name}"


def why_not() -> str:
    """What keeps this machine from having rules: no tool, or none that works. Empty if it may have them."""
    found, wrong = _found()
    return "" if found else wrong


def replace(name: str, version: int, addresses: Iterable[IPv4Interface | IPv6Interface], mark: int) -> None:
    """Guard one family's addresses of the interface `name`, and carry `mark` over, in place of any guard before.

    Raises NetworkError.
    """
    guarded = [str(address.ip) for address in addresses if address.version == version]
    if _found()[0] == "nft":
        _run(["nft", "-f", "-"], _nft_script(name, version, guarded, mark))
    else:
        _restore(version, *_iptables_rules(name, guarded, mark))


def _iptables_rules(name: str, guarded: list[str], mark: int) -> tuple[str, dict[str, list[str]]]:
    comment = _comment(name)
    spoofed = f"! -i {name} -m addrtype ! --src-type LOCAL -j DROP {comment}"
    return name, {
        "raw": [f"-I PREROUTING -d {address} {spoofed}" for address in guarded],
        "mangle": [
            f"-I POSTROUTING -m mark --mark {mark} -p udp -j CONNMARK --save-mark {comment}",
            f"-I PREROUTING -p udp -j CONNMARK --restore-mark {comment}",
        ],
    }


def _nft_script(name: str, version: int, guarded: list[str], mark: int) -> str:
    family, table = _FAMILIES[version], f"table {_FAMILIES[version]} wg-quick-{name}"
    guards = "".join(
        f'iifname != "{name}" {family} daddr {address} fib saddr type != local drop; ' for address in guarded
    )
    return (
        f"{table} {{}}\n"
        f"delete {table}\n"
        f"{table} {{\n"
        f"chain preraw {{ type filter hook prerouting priority -300; {guards}}}\n"
        "chain premangle { type filter hook prerouting priority -150; meta l4proto udp meta mark set ct mark; }\n"
        "chain postmangle { type filter hook postrouting priority -150; "
        f"meta l4proto udp meta mark {mark} ct mark set meta mark; }}\n"
        "}\n"
    )


def remove(name: str, version: int) -> None:
    """Take one family's rules of the interface `name` away again. Raises NetworkError."""
    if _found()[0] == "nft":
        _run(["nft", "-f", "-"], f"delete table {_FAMILIES[version]} wg-quick-{name}\n")
    else:
        _restore(version, name, {"raw": [], "mangle": []})


def _comment(name: str) -> str:
    """By which wg-quick, and we, know a rule of iptables again."""
    return f'-m comment --comment "wg-quick(8) rule for {name}"'


def _restore(version: int, name: str, tables: Mapping[str, list[str]], *options: str) -> None:
    """Put rules into tables of iptables in the place of all that are there for the interface."""
    program = _IPTABLES[version]
    script = ""
    for table, added in tables.items():
        present = _run([f"{program}-save", "-t", table]).splitlines()
        removed = [f"-D{rule[2:]}" for rule in present if rule.startswith("-A") and _comment(name) in rule]
        script += "\n".join([f"*{table}", *removed, *added, "COMMIT\n"])
    _run([f"{program}-restore", "-n", *options], script)


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise NetworkError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout
