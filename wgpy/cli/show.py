"""`wgpy show`: what a running interface answers over UAPI, in the layout of `wg show` or as JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, Final

from wgpy.daemon import uapi_client
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.errors import ControlError

_UNITS: Final = ((365 * 86400, "year"), (86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_STYLES: Final = {"interface": "\x1b[32m", "peer": "\x1b[33m", "unit": "\x1b[36m", "bold": "\x1b[1m", "red": "\x1b[31m"}
_RESET: Final = "\x1b[0m"


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    show = verbs.add_parser(
        "show",
        help="interfaces and peers, as `wg show`",
        description="Show every interface that answers in /var/run/wireguard, or one. Private and preshared keys are "
        "never shown.",
    )
    show.add_argument("interface", metavar="INTERFACE", nargs="?", help="only this one")
    show.add_argument("--json", action="store_true", help="as JSON: bytes, seconds since 1970, drops by reason")
    show.set_defaults(call=_show)


def _show(arguments: argparse.Namespace) -> int:
    names = [arguments.interface] if arguments.interface else uapi_client.interfaces()
    statuses = {}
    failed = False
    for name in names:
        try:
            statuses[name] = uapi_client.read(name)
        except ControlError as error:
            print(f"Unable to access interface {name}: {error}", file=sys.stderr)
            failed = True
    if arguments.json:
        print(json.dumps({name: as_json(status) for name, status in statuses.items()}, indent=2))
    else:
        colour = {"always": True, "never": False}.get(os.environ.get("WG_COLOR_MODE", ""), sys.stdout.isatty())
        now = int(time.time())
        print("\n".join(as_text(name, status, now, colour) for name, status in statuses.items()), end="")
    return 1 if failed and not statuses else 0


def as_text(name: str, status: DeviceStatus, now: int, colour: bool) -> str:
    """The layout of `wg show`; `now` is seconds since 1970. Peers come with the latest handshake first."""
    paint = _paint if colour else _plain
    lines = [f"{paint('bold', paint('interface', 'interface'))}: {paint('interface', name)}"]

    def add(field: str, value: str) -> None:
        lines.append(f"  {paint('bold', field)}: {value}")

    if status.public_key:
        add("public key", status.public_key.base64())
        add("private key", "(hidden)")
    if status.listen_port:
        add("listening port", str(status.listen_port))
    if status.fwmark:
        add("fwmark", f"{status.fwmark:#x}")
    for peer in sorted(status.peers, key=lambda peer: -peer.last_handshake_ns):
        lines += ["", f"{paint('bold', paint('peer', 'peer'))}: {paint('peer', peer.public_key.base64())}"]
        for field, value in _peer_fields(peer, now, paint):
            add(field, value)
    return "\n".join(lines) + "\n"


def _peer_fields(peer: PeerStatus, now: int, paint: Any) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    if peer.preshared_key:
        fields.append(("preshared key", "(hidden)"))
    if peer.endpoint:
        fields.append(("endpoint", str(peer.endpoint)))
    slash = paint("unit", "/")
    allowed = ", ".join(f"{net.network_address}{slash}{net.prefixlen}" for net in peer.allowed_ips)
    fields.append(("allowed ips", allowed or "(none)"))
    if peer.last_handshake_ns:
        fields.append(("latest handshake", _ago(now - peer.last_handshake_ns // 10**9, paint)))
    if peer.rx_bytes or peer.tx_bytes:
        fields.append(("transfer", f"{_bytes(peer.rx_bytes, paint)} received, {_bytes(peer.tx_bytes, paint)} sent"))
    if peer.persistent_keepalive:
        fields.append(("persistent keepalive", f"every {_duration(peer.persistent_keepalive, paint)}"))
    return fields


def _ago(seconds: int, paint: Any) -> str:
    if seconds < 0:
        return str(paint("red", "(System clock wound backward; connection problems may ensue.)"))
    return f"{_duration(seconds, paint)} ago" if seconds else "Now"


def _duration(seconds: int, paint: Any) -> str:
    parts = []
    for size, unit in _UNITS:
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number} {paint('unit', unit if number == 1 else unit + 's')}")
    return ", ".join(parts)


def _bytes(number: int, paint: Any) -> str:
    if number < 1024:
        return f"{number} {paint('unit', 'B')}"
    size = float(number)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:.2f} {paint('unit', unit)}"


def _paint(style: str, text: str) -> str:
    return f"{_STYLES[style]}{text}{_RESET}"


def _plain(_: str, text: str) -> str:
    return text


def as_json(status: DeviceStatus) -> dict[str, Any]:
    """Plain values: bytes, seconds since 1970 with a fraction (null for never), no secrets."""
    return {
        "public_key": status.public_key.base64() if status.public_key else None,
        "listen_port": status.listen_port,
        "fwmark": status.fwmark,
        "peers": [
            {
                "public_key": peer.public_key.base64(),
                "has_preshared_key": peer.preshared_key is not None,
                "endpoint": str(peer.endpoint) if peer.endpoint else None,
                "allowed_ips": [str(network) for network in peer.allowed_ips],
                "latest_handshake": peer.last_handshake_ns / 1e9 if peer.last_handshake_ns else None,
                "rx_bytes": peer.rx_bytes,
                "tx_bytes": peer.tx_bytes,
                "persistent_keepalive": peer.persistent_keepalive,
                "drops": dict(peer.drops),
            }
            for peer in status.peers
        ],
        "drops": dict(status.drops),
    }
