"""The nftables rules that go with a default route through the tunnel, in the table wg-quick(8) would make.

They drop what is sent to the tunnel's own addresses from outside the tunnel, so that nobody on the local network can
probe or spoof connections inside it (CVE-2019-14899), and carry the mark of the tunnel's datagrams over to their
answers, so that strict reverse path filtering finds the way they came.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from wgpy.errors import NetworkError

_FAMILIES: Final = {4: "ip", 6: "ip6"}
_TIMEOUT: Final = 30.0  # seconds


def table(name: str, version: int) -> str:
    """What nft calls the rules of one family for the interface `name`: the family and the table."""
    return f"{_FAMILIES[version]} wg-quick-{name}"


def is_there() -> bool:
    """Whether this machine has nft."""
    return shutil.which("nft") is not None


def replace(name: str, version: int, addresses: Iterable[IPv4Interface | IPv6Interface], mark: int) -> None:
    """Guard one family's addresses of the interface `name`, and carry `mark` over, in place of any guard before.

    Raises NetworkError.
    """
    family = _FAMILIES[version]
    guards = "".join(
        f'iifname != "{name}" {family} daddr {address.ip} fib saddr type != local drop; '
        for address in addresses
        if address.version == version
    )
    _nft(
        f"table {table(name, version)} {{}}\n"
        f"delete table {table(name, version)}\n"
        f"table {table(name, version)} {{\n"
        f"chain preraw {{ type filter hook prerouting priority -300; {guards}}}\n"
        "chain premangle { type filter hook prerouting priority -150; meta l4proto udp meta mark set ct mark; }\n"
        "chain postmangle { type filter hook postrouting priority -150; "
        f"meta l4proto udp meta mark {mark} ct mark set meta mark; }}\n"
        "}\n"
    )


def remove(name: str, version: int) -> None:
    """Take one family's rules of the interface `name` away again. Raises NetworkError."""
    _nft(f"delete table {table(name, version)}\n")


def _nft(script: str) -> None:
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=script, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"nft: {error}") from error
    if done.returncode != 0:
        raise NetworkError(f"nft: {' '.join(done.stderr.split())}")
