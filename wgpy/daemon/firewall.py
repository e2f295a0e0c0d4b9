"""Firewall rules: for a default route through a tunnel the same as wg-quick(8) sets, and those that clamp TCP's MSS.

The former drop packets to the tunnel's own addresses that arrive by another interface, so that nobody on the local
network can probe or spoof connections in the tunnel (CVE-2019-14899). They also give replies to the tunnel's datagrams
the same mark, so that strict reverse path filtering accepts them. The latter serve hosts behind this one: their TCP
believes in the MTU of their own network, and path MTU discovery fails where ICMP is filtered (RFC 2923 section 2.1).
Set by nft, or by iptables if nft is missing or fails.
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
    """Find the first of "nft" and "iptables" that works, or ""; and what is wrong with those before it.

    Each is tried with rules like those of `replace`, which the kernel only checks: it may lack a module they need.
    """
    trials: dict[str, Callable[[], object]] = {
        "nft": lambda: run(["nft", "-c", "-f", "-"], _nft_script("wgpy-trial", 4, ["192.0.2.1"], 1)),
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
    return "", "; ".join(wrong) or "neither nft nor iptables is installed"


_found: Final = cache(find_tool)


def rules(name: str, version: int) -> str:
    """A name, for messages, for the rules of one IP version for an interface."""
    if _found()[0] == "nft":
        return f"nft table {_FAMILIES[version]} wg-quick-{name}"
    return f"{_IPTABLES[version]} rules for {name}"


def why_not() -> str:
    """Why no rules can be set on this machine: no tool is installed, or none works. Empty if they can."""
    found, wrong = _found()
    return "" if found else wrong


def replace(name: str, version: int, addresses: Iterable[IPv4Interface | IPv6Interface], mark: int) -> None:
    """Set the rules of one IP version for an interface, in place of earlier ones. Raises NetworkError.

    They protect those of its `addresses` that have the version, and copy `mark` to replies.
    """
    guarded = [str(address.ip) for address in addresses if address.version == version]
    if _found()[0] == "nft":
        run(["nft", "-f", "-"], _nft_script(name, version, guarded, mark))
    else:
        _restore(version, *_iptables_rules(name, guarded, mark))


def _iptables_rules(name: str, guarded: list[str], mark: int) -> tuple[str, dict[str, list[str]]]:
    comment = _comment(name)
    spoofed = f"! -i {name} -m addrtype ! --src-type LOCAL -j DROP {comment}"
    return comment, {
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
    """Remove the rules of one IP version for an interface. Raises NetworkError."""
    if _found()[0] == "nft":
        run(["nft", "-f", "-"], f"delete table {_FAMILIES[version]} wg-quick-{name}\n")
    else:
        _restore(version, _comment(name), {"raw": [], "mangle": []})


def clamp_rules(name: str) -> str:
    """A name, for messages, for the rules that clamp the MSS on an interface."""
    if _found()[0] == "nft":
        return f"nft table inet {_clamp_table(name)}"
    return f"iptables and ip6tables rules for TCP's MSS on {name}"


def clamp(name: str) -> None:
    """Lower the MSS of TCP connections that are forwarded through an interface to what fits. Raises NetworkError.

    Both ways, and to the smaller MTU of the routes there and back, which the kernel looks up for each SYN. A smaller
    MSS stays.
    """
    if _found()[0] == "nft":
        run(["nft", "-f", "-"], _clamp_script(name))
        return
    for version in _IPTABLES:
        rule = f"-p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu {_clamp_comment(name)}"
        added = [f"-A FORWARD {way} {name} {rule}" for way in ("-i", "-o")]
        _restore(version, _clamp_comment(name), {"mangle": added})


def remove_clamp(name: str) -> None:
    """Remove the rules that `clamp` set. Raises NetworkError."""
    if _found()[0] == "nft":
        run(["nft", "-f", "-"], f"delete table inet {_clamp_table(name)}\n")
    else:
        for version in _IPTABLES:
            _restore(version, _clamp_comment(name), {"mangle": []})


def _clamp_table(name: str) -> str:
    return f"wgpy-mss-{name}"


def clamping(name: str) -> list[str]:
    """The rules of nft that do what `clamp` says, for a chain at the hook `forward`."""
    clamped = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
    return [f'{way} "{name}" {clamped}' for way in ("iifname", "oifname")]


def _clamp_script(name: str) -> str:
    table = f"table inet {_clamp_table(name)}"
    return (
        f"{table} {{}}\n"
        f"delete {table}\n"
        f"{table} {{\n"
        f"chain forward {{ type filter hook forward priority mangle; {'; '.join(clamping(name))}; }}\n"
        "}\n"
    )


def _clamp_comment(name: str) -> str:
    return f'-m comment --comment "wgpy clamps the MSS on {name}"'


def _comment(name: str) -> str:
    """The comment by which wg-quick and wgpy recognize their rules of iptables."""
    return f'-m comment --comment "wg-quick(8) rule for {name}"'


def _restore(version: int, comment: str, tables: Mapping[str, list[str]], *options: str) -> None:
    """Replace all rules with this comment in tables of iptables."""
    program = _IPTABLES[version]
    script = ""
    for table, added in tables.items():
        present = run([f"{program}-save", "-t", table]).splitlines()
        removed = [f"-D{rule[2:]}" for rule in present if rule.startswith("-A") and comment in rule]
        script += "\n".join([f"*{table}", *removed, *added, "COMMIT\n"])
    run([f"{program}-restore", "-n", *options], script)


def run(command: list[str], text: str = "", started: Callable[[int], object] | None = None) -> str:
    """Run nft or an iptables program, with `text` as its input; returns what it prints. Raises NetworkError.

    `started` is told the id of the process before that has read any of `text`.
    """
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            if started:
                started(process.pid)
            try:
                output, errors = process.communicate(text, _TIMEOUT)
            except BaseException:
                process.kill()
                raise
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{command[0]}: {error}") from error
    if process.returncode != 0:
        raise NetworkError(f"{command[0]}: {' '.join(errors.split())}")
    return output
