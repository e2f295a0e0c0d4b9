"""`wgpy show`: prints the state of running interfaces, in all forms of `wg show` and as JSON."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TextIO

from wgpy import control
from wgpy.config.redact import redacted
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.errors import ControlError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

_UNITS: Final = ((365 * 86400, "year"), (86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_STYLES: Final = {"interface": "\x1b[32m", "peer": "\x1b[33m", "unit": "\x1b[36m", "bold": "\x1b[1m", "red": "\x1b[31m"}
_RESET: Final = "\x1b[0m"
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    show = verbs.add_parser(
        "show",
        help="show interfaces and peers, like `wg show`",
        description="Show all interfaces, including the kernel's, or one of them, or only one PARAMETER in a form for "
        f"scripts: {', '.join(_SCRIPTS)}. Of these, private-key, preshared-keys and dump print secrets.",
        epilog="Environment: WG_COLOR_MODE is always or never; WG_HIDE_KEYS=never shows the secret keys.",
    )
    show.add_argument(
        "interface",
        metavar="INTERFACE",
        nargs="?",
        default="all",
        help="its name; all, for all of them (the default); or interfaces, for only their names",
    )
    show.add_argument("parameter", metavar="PARAMETER", nargs="?", help="print only this, in a form for scripts")
    show.add_argument(
        "--json", action="store_true", help="print JSON, with bytes, seconds since 1970, and drops by reason"
    )
    show.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=_seconds,
        const=1.0,
        help="repeat every SECONDS (default: 1), until Ctrl-C",
    )
    show.set_defaults(call=_show, usage=show.format_usage(), wrong=show.error)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.05 <= seconds <= 86400:  # neither is nan
        raise argparse.ArgumentTypeError(
            f"expected seconds, 0.05 to 86400, not {text!r}; an interface's name goes before --watch"
        )
    return seconds


def _show(arguments: argparse.Namespace) -> int:
    if arguments.json and (arguments.parameter or arguments.interface == "interfaces"):
        arguments.wrong("--json prints everything, so it takes no parameter, and not `interfaces`")
    if arguments.interface == "interfaces" and arguments.parameter:
        arguments.wrong("interfaces takes no parameter")
    if arguments.watch is None:
        return _show_once(arguments, sys.stdout)
    while True:
        text = io.StringIO()
        _show_once(arguments, text)
        _redraw(text.getvalue(), gap="" if arguments.json or arguments.parameter else "\n")
        time.sleep(arguments.watch)


def _redraw(text: str, *, gap: str) -> None:
    """Print a text and a gap; on a terminal, overwrite the last text line by line and cut it to the height."""
    if sys.stdout.isatty():
        lines = text.splitlines()[: shutil.get_terminal_size().lines - 1]
        text = "".join([_HOME, *(f"{line}{_ERASE_LINE}\n" for line in lines), _ERASE_BELOW])
    else:
        text += gap
    print(text, end="", flush=True)


def _show_once(arguments: argparse.Namespace, out: TextIO) -> int:
    if arguments.interface == "interfaces":
        if names := control.interfaces():
            print(*names, file=out)
        return 0
    every = arguments.interface == "all"
    names = control.interfaces() if every else [arguments.interface]
    statuses = {}
    for name in names:
        try:
            statuses[name] = control.status(name)
        except ControlError as error:
            print(redacted(f"Unable to access interface {name}: {error}"), file=sys.stderr)
    if names and not statuses:
        return 1
    if arguments.json:
        import json

        print(json.dumps({name: as_json(status) for name, status in statuses.items()}, indent=2), file=out)
    elif arguments.parameter:
        for name, status in statuses.items():
            if (script := _SCRIPTS.get(arguments.parameter)) is None:
                shown = redacted(arguments.parameter)
                print(f"Invalid parameter: `{shown}'\n{arguments.usage}", end="", file=sys.stderr)
                return 1
            for line in script(status):
                print(*([name] if every else []), *line, sep="\t", file=out)
    else:
        colour = {"always": True, "never": False}.get(os.environ.get("WG_COLOR_MODE", ""), sys.stdout.isatty())
        hidden = os.environ.get("WG_HIDE_KEYS") != "never"
        now = int(time.time())
        texts = (as_text(name, status, now, colour=colour, hidden=hidden) for name, status in statuses.items())
        print("\n".join(texts), end="", file=out)
    return 0


def as_text(name: str, status: DeviceStatus, now: int, *, colour: bool, hidden: bool = True) -> str:
    """Format a status like `wg show`, peers with the latest handshake first. `now` is seconds since 1970.

    The private and preshared keys are included unless `hidden`.
    """
    paint = _paint if colour else _plain
    lines = [f"{paint('', '')}{paint('interface bold', 'interface')}: {paint('interface', name)}"]

    def add(field: str, value: str) -> None:
        lines.append(f"  {paint('bold', field)}: {value}")

    if status.public_key and status.private_key:
        add("public key", status.public_key.base64())
        add("private key", "(hidden)" if hidden else status.private_key.base64())
    if status.listen_port:
        add("listening port", str(status.listen_port))
    if status.fwmark:
        add("fwmark", f"{status.fwmark:#x}")
    if status.workers:
        add("workers", str(len(status.workers)))
    for peer in sorted(status.peers, key=lambda peer: -peer.last_handshake_ns):
        lines += ["", f"{paint('peer bold', 'peer')}: {paint('peer', peer.public_key.base64())}"]
        for field, value in _peer_fields(peer, now, paint, hidden):
            add(field, value)
    return "\n".join(lines) + "\n"


def _peer_fields(peer: PeerStatus, now: int, paint: Any, hidden: bool) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    if peer.name:
        fields.append(("name", peer.name))
    if peer.preshared_key:
        fields.append(("preshared key", "(hidden)" if hidden else peer.preshared_key.base64()))
    if peer.endpoint:
        fields.append(("endpoint", endpoint(peer)))
    allowed = ", ".join(allowed_ips(peer, slash=paint("unit", "/")))
    fields.append(("allowed ips", allowed or "(none)"))
    if peer.last_handshake_ns:
        fields.append(("latest handshake", _ago(now - peer.last_handshake_ns // 10**9, paint)))
    if peer.rx_bytes or peer.tx_bytes:
        fields.append(("transfer", f"{_bytes(peer.rx_bytes, paint)} received, {_bytes(peer.tx_bytes, paint)} sent"))
    if peer.persistent_keepalive:
        fields.append(("persistent keepalive", f"every {_duration(peer.persistent_keepalive, paint)}"))
    return fields


def endpoint(peer: PeerStatus) -> str:
    """Format a peer's endpoint as getnameinfo does: a link-local address has its interface's name."""
    known = peer.endpoint
    if known is None:
        return "(none)"
    host = _address(known.address_bytes)
    if known.scope_id:
        try:
            host += f"%{socket.if_indextoname(known.scope_id)}"
        except OSError:
            host += f"%{known.scope_id}"
    return f"[{host}]:{known.port}" if known.is_ipv6 else f"{host}:{known.port}"


def allowed_ips(peer: PeerStatus, *, slash: str = "/") -> list[str]:
    """Format a peer's allowed IPs."""
    return [f"{_address(net.network_address.packed)}{slash}{net.prefixlen}" for net in peer.allowed_ips]


def _address(packed: bytes) -> str:
    """Format an address as wg does; ipaddress formats IPv6 addresses with an embedded IPv4 address differently."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


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


def _paint(styles: str, text: str) -> str:
    return "".join(_STYLES[style] for style in styles.split()) + text + _RESET


def _plain(_: str, text: str) -> str:
    return text


def as_json(status: DeviceStatus) -> dict[str, Any]:
    """A status as JSON values: bytes, seconds since 1970 with a fraction (None for never), and no secrets."""
    return {
        "public_key": status.public_key.base64() if status.public_key else None,
        "listen_port": status.listen_port,
        "fwmark": status.fwmark,
        "peers": [
            {
                "public_key": peer.public_key.base64(),
                "name": peer.name,
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
        "handed_over": status.handed_over,
        "workers": [worker._asdict() for worker in status.workers],
    }


# The forms for scripts: what `wg show INTERFACE PARAMETER` prints, as lines of columns. Some show secrets.

_Lines = Iterable[tuple[object, ...]]


def _of_interface(column: Callable[[DeviceStatus], object]) -> Callable[[DeviceStatus], _Lines]:
    return lambda status: [(column(status),)]


def _of_peers(*columns: Callable[[PeerStatus], object]) -> Callable[[DeviceStatus], _Lines]:
    return lambda status: ((_key(peer.public_key), *(column(peer) for column in columns)) for peer in status.peers)


def _key(key: PrivateKey | PresharedKey | PublicKey | None) -> str:
    return key.base64() if key else "(none)"


def _mark(status: DeviceStatus) -> str:
    return f"{status.fwmark:#x}" if status.fwmark else "off"


def _handshake(peer: PeerStatus) -> int:
    return peer.last_handshake_ns // 10**9


def _keepalive(peer: PeerStatus) -> object:
    return peer.persistent_keepalive or "off"


def _dump(status: DeviceStatus) -> _Lines:
    yield _key(status.private_key), _key(status.public_key), status.listen_port, _mark(status)
    yield from _of_peers(
        lambda peer: _key(peer.preshared_key),
        endpoint,
        lambda peer: ",".join(allowed_ips(peer)) or "(none)",
        _handshake,
        lambda peer: peer.rx_bytes,
        lambda peer: peer.tx_bytes,
        _keepalive,
    )(status)


_SCRIPTS: Final[dict[str, Callable[[DeviceStatus], _Lines]]] = {
    "public-key": _of_interface(lambda status: _key(status.public_key)),
    "private-key": _of_interface(lambda status: _key(status.private_key)),
    "listen-port": _of_interface(lambda status: status.listen_port),
    "fwmark": _of_interface(_mark),
    "peers": _of_peers(),
    "preshared-keys": _of_peers(lambda peer: _key(peer.preshared_key)),
    "endpoints": _of_peers(endpoint),
    "allowed-ips": _of_peers(lambda peer: " ".join(allowed_ips(peer)) or "(none)"),
    "latest-handshakes": _of_peers(_handshake),
    "transfer": _of_peers(lambda peer: peer.rx_bytes, lambda peer: peer.tx_bytes),
    "persistent-keepalive": _of_peers(_keepalive),
    "dump": _dump,
}
