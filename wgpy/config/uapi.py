"""Reads and writes the messages of the userspace API, as `wg` and wireguard-go use it (wireguard.com/xplatform).

Requests and answers are both read and written here, so that daemon, client and tests share the same tables. A message
is lines of `key=value`: those before the first `public_key` are about the device, the others about the peer of the last
`public_key` before them.
"""

from __future__ import annotations

import errno
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.status import DeviceStatus, PeerStatus, WorkerStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError
from wgpy.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey

_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_PREFIX: Final = re.compile(r"[0-9A-Fa-f:.]+/(0|[1-9][0-9]{0,2})")
_IPV4_PREFIX: Final = re.compile(r"{0}\.{0}\.{0}\.{0}/{0}".format("(0|[1-9][0-9]{0,2})"))
_ZONE: Final = re.compile(r"(\[[^]%]+%)([^]%]+)(\]:[0-9]+)")
_REASON: Final = re.compile(r"[a-z0-9_]{1,32}")
_ERRNO: Final = re.compile(r"-?[0-9]{1,9}")
_PIECE: Final = 3 << 12  # bytes
_SAFE_TO_SHOW: Final = re.compile(r"[a-z_]{1,32}")  # not a key in the wrong place, which ends in = as names do


class UapiError(ConfigError):
    """An invalid message. `errno` is positive; the text names the line and the key but never a value."""

    def __init__(self, message: str, errno: int = errno.EINVAL) -> None:
        super().__init__(message)
        self.errno = errno


class _Key(NamedTuple):
    """How to read one key: the dataclass field it sets ("" for none), its parser, and what an error says to write."""

    field: str
    read: Callable[[str], Any]  # raises ValueError
    expected: str


def _number(field: str, maximum: int) -> _Key:
    def read(text: str) -> int:
        if not _NUMBER.fullmatch(text) or int(text) > maximum:
            raise ValueError
        return int(text)

    return _Key(field, read, f"a decimal number from 0 to {maximum}")


def _constant(field: str, only: str) -> _Key:
    def read(text: str) -> bool:
        if text != only:
            raise ValueError
        return True

    return _Key(field, read, only)


def _network(text: str) -> IPv4Network | IPv6Network:
    if match := _IPV4_PREFIX.fullmatch(text):  # takes two thirds of the time of ipaddress's own parser
        a, b, c, d, length = map(int, match.groups())
        if max(a, b, c, d) > 255:
            raise ValueError
        return IPv4Network((a << 24 | b << 16 | c << 8 | d, length), strict=False)
    if not _PREFIX.fullmatch(text):
        raise ValueError
    return ip_network(text, strict=False)


def _allowed_ip_change(text: str) -> AllowedIPChange:
    return AllowedIPChange(_network(text.removeprefix("-")), remove=text.startswith("-"))


def _drop(text: str) -> tuple[str, int]:
    reason, _, count = text.partition(":")
    if not _REASON.fullmatch(reason) or not _NUMBER.fullmatch(count):
        raise ValueError
    return reason, int(count)


def _worker(text: str) -> WorkerStatus:
    numbers = text.split(":")
    if not all(map(_NUMBER.fullmatch, numbers)) or len(numbers) != len(WorkerStatus._fields):
        raise ValueError
    return WorkerStatus(*map(int, numbers))


_HEX: Final = "64 hexadecimal digits"
_PREFIX_EXPECTED: Final = "an address, a slash and a prefix length"
_PUBLIC_KEY: Final = _Key("public_key", PublicKey.from_hex, _HEX)
_ENDPOINT: Final = _Key(
    "endpoint", Endpoint.parse, "a numeric address and port: 192.0.2.1:51820 or [2001:db8::1]:51820"
)

_DEVICE: Final = {
    "private_key": _Key("private_key", PrivateKey.from_hex, _HEX),
    "listen_port": _number("listen_port", 0xFFFF),
    "fwmark": _number("fwmark", 0xFFFFFFFF),
    "public_key": _PUBLIC_KEY,
}
_PEER: Final = {
    "public_key": _PUBLIC_KEY,
    "preshared_key": _Key("preshared_key", PresharedKey.from_hex, _HEX),
    "endpoint": _ENDPOINT,
    "persistent_keepalive_interval": _number("persistent_keepalive", 0xFFFF),
}
_SET_DEVICE: Final = _DEVICE | {"replace_peers": _constant("replace_peers", "true")}
_SET_PEER: Final = _PEER | {
    "update_only": _constant("update_only", "true"),
    "remove": _constant("remove", "true"),
    "replace_allowed_ips": _constant("replace_allowed_ips", "true"),
    "allowed_ip": _Key("allowed_ips", _allowed_ip_change, _PREFIX_EXPECTED),
    "protocol_version": _constant("", "1"),
}
# wgpy's own, like a peer's `name`; `wg` ignores unknown keys.
_DROP: Final = {"drop": _Key("drops", _drop, "a reason, a colon and a number of packets")}
_GET_DEVICE: Final = _DEVICE | {
    **_DROP,
    "handed_over": _number("handed_over", 2**64 - 1),
    "worker": _Key("workers", _worker, "a process id and three counts, with colons between"),
}
_GET_PEER: Final = _PEER | {
    **_DROP,
    "name": _Key("name", unquote, "a name, percent-encoded"),
    "last_handshake_time_sec": _number("seconds", 2**63 - 1),
    "last_handshake_time_nsec": _number("nanoseconds", 10**9 - 1),
    "tx_bytes": _number("tx_bytes", 2**64 - 1),
    "rx_bytes": _number("rx_bytes", 2**64 - 1),
    "allowed_ip": _Key("allowed_ips", _network, _PREFIX_EXPECTED),
}


def _no_interfaces(name: str) -> int:
    raise OSError(errno.ENODEV, "interface names cannot be looked up here")


def parse_set(lines: Iterable[str], interface_index: Callable[[str], int] = _no_interfaces) -> DeviceChange:
    """Read the lines between `set=1` and the empty line, without their newlines.

    `interface_index` is a function like `socket.if_nametoindex`, and may raise OSError: `wg` sends the zone of a
    link-local endpoint by name. Raises UapiError with wireguard-go's errno: EPROTO for a line without `=`, else EINVAL.
    """
    device: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    for where, key, value in _pairs(lines):
        table = _SET_PEER if peers else _SET_DEVICE
        if key not in table:
            section = "peer" if peers else "device"
            shown = key if _SAFE_TO_SHOW.fullmatch(key) else "(not shown)"
            raise UapiError(f"line {where}: no {section} key {shown}")
        _store(table[key], _read(where, key, value, table[key], interface_index, errno.EINVAL), device, peers)
    return DeviceChange(**device, peers=tuple(_peer_change(fields) for fields in peers))


def _peer_change(fields: dict[str, Any]) -> PeerChange:
    if fields.get("remove"):  # other settings of a removed peer do not matter
        return PeerChange(public_key=fields["public_key"], remove=True)
    return PeerChange(**fields | {"allowed_ips": tuple(fields.get("allowed_ips", ()))})


def parse_status(text: str, interface_index: Callable[[str], int] = _no_interfaces) -> DeviceStatus:
    """Read the answer to `get=1`. Like `wg`, derive the public key, and ignore unknown keys.

    Raises UapiError: with EPROTO if the answer is malformed or incomplete, or with the errno in the answer.
    """
    body, end, _ = text.partition("\n\n")
    device: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    for where, key, value in _pairs(body.split("\n") if end else ()):
        if key == "errno":
            if not _ERRNO.fullmatch(value):
                raise UapiError(f"line {where}: errno: expected a number", errno.EPROTO)
            if code := abs(int(value)):  # wireguard-go's are negative
                raise UapiError(f"the interface answered with error {errno.errorcode.get(code, code)}", code)
            break
        table = _GET_PEER if peers else _GET_DEVICE
        if key in table:
            read = _read(where, key, value, table[key], interface_index, errno.EPROTO)
            if key not in ("private_key", "preshared_key") or not read.is_zero():  # all zero means none
                _store(table[key], read, device, peers)
    else:
        raise UapiError("the answer is incomplete", errno.EPROTO)
    private_key = device.get("private_key")
    public_key = private_key.public_key if private_key else None
    device["workers"] = tuple(device.get("workers", ()))
    return DeviceStatus(**device, public_key=public_key, peers=tuple(_peer_status(fields) for fields in peers))


def _peer_status(fields: dict[str, Any]) -> PeerStatus:
    last_handshake_ns = fields.pop("seconds", 0) * 10**9 + fields.pop("nanoseconds", 0)
    allowed_ips = tuple(fields.pop("allowed_ips", ()))
    return PeerStatus(**fields, last_handshake_ns=last_handshake_ns, allowed_ips=allowed_ips)


def _pairs(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """The number, from 1, of each line, its key and its value."""
    for number, line in enumerate(lines, 1):
        key, equals, value = line.partition("=")
        if not equals:
            raise UapiError(f"line {number}: expected key=value", errno.EPROTO)
        yield number, key, value


def _read(where: int, name: str, value: str, key: _Key, interface_index: Callable[[str], int], code: int) -> Any:
    try:
        zone = _ZONE.fullmatch(value) if key is _ENDPOINT else None
        if zone and not zone[2].isdecimal():
            value = f"{zone[1]}{interface_index(zone[2])}{zone[3]}"
        return key.read(value)
    except (ValueError, OSError):
        raise UapiError(f"line {where}: {name}: expected {key.expected}", code) from None


def _store(key: _Key, value: Any, device: dict[str, Any], peers: list[dict[str, Any]]) -> None:
    if key is _PUBLIC_KEY:
        peers.append({})
    fields = peers[-1] if peers else device
    if key.field in ("allowed_ips", "workers"):
        fields.setdefault(key.field, []).append(value)
    elif key.field == "drops":
        fields.setdefault("drops", {}).update([value])
    elif key.field:
        fields[key.field] = value
    if key.field == "replace_allowed_ips":
        fields.pop("allowed_ips", None)  # drops what the lines before it added


def format_set(change: DeviceChange) -> str:
    """Write a change as a request, from `set=1` to the empty line, with keys in the order of `wg`."""
    lines = ["set=1", *_given("private_key", change.private_key)]
    lines += _given("listen_port", change.listen_port) + _given("fwmark", change.fwmark)
    lines += ["replace_peers=true"] * change.replace_peers
    for peer in change.peers:
        lines.append(f"public_key={peer.public_key.hex()}")
        if peer.remove:
            lines.append("remove=true")
            continue
        lines += ["update_only=true"] * peer.update_only
        lines += _given("preshared_key", peer.preshared_key) + _given("endpoint", peer.endpoint)
        lines += _given("persistent_keepalive_interval", peer.persistent_keepalive)
        lines += ["replace_allowed_ips=true"] * peer.replace_allowed_ips
        lines += [f"allowed_ip={'-' * allowed.remove}{allowed.network}" for allowed in peer.allowed_ips]
    return "\n".join(lines) + "\n\n"


def _given(key: str, value: object) -> list[str]:
    return [] if value is None else [f"{key}={value.hex() if isinstance(value, bytes) else value}"]


def format_status(status: DeviceStatus) -> str:
    """Write the answer to `get=1`, with keys in the order of wireguard-go. It contains the secret keys."""
    lines = _given("private_key", status.private_key if any(status.private_key or b"") else None)
    lines += _given("listen_port", status.listen_port or None) + _given("fwmark", status.fwmark or None)
    lines += [f"drop={reason}:{count}" for reason, count in status.drops.items()]
    lines += _given("handed_over", status.handed_over or None)
    lines += [f"worker={':'.join(map(str, worker))}" for worker in status.workers]
    for peer in status.peers:
        seconds, nanoseconds = divmod(peer.last_handshake_ns, 10**9)
        lines += [
            f"public_key={peer.public_key.hex()}",
            f"preshared_key={(peer.preshared_key or bytes(KEY_SIZE)).hex()}",
            "protocol_version=1",
            *_given("endpoint", peer.endpoint),
            f"last_handshake_time_sec={seconds}",
            f"last_handshake_time_nsec={nanoseconds}",
            f"tx_bytes={peer.tx_bytes}",
            f"rx_bytes={peer.rx_bytes}",
            f"persistent_keepalive_interval={peer.persistent_keepalive}",
            *(f"allowed_ip={network}" for network in peer.allowed_ips),
            *(f"drop={reason}:{count}" for reason, count in peer.drops.items()),
            *_given("name", quote(peer.name, safe=" ") or None),
        ]
    return "\n".join([*lines, "errno=0"]) + "\n\n"


# wgpy's own request beside get and set: apply a wg-quick file. Its text is sent in lines of limited length.


def format_apply(text: str) -> str:
    """Write the request to apply a file's text, including bytes that are not UTF-8."""
    data = text.encode("utf-8", errors="surrogateescape")
    pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
    return "\n".join(["apply=1", *(f"text={b64encode(piece).decode()}" for piece in pieces), "", ""])


def parse_apply(lines: Iterable[str]) -> str:
    """Read the file's text from the lines of a request after the first. Raises UapiError."""
    data = b""
    for line in lines:
        name, _, value = line.partition("=")
        try:
            data += b64decode(value, validate=True)
        except ValueError:
            name = ""
        if name != "text":
            raise UapiError("apply: expected text= and base64")
    return data.decode("utf-8", errors="surrogateescape")


def format_applied(steps: Iterable[str], error: str) -> str:
    """Write the answer: the steps taken, and the error of the one that failed or ""."""
    lines = [*(f"step={quote(step)}" for step in steps), *([f"error={quote(error)}"] if error else [])]
    return "\n".join([*lines, f"errno={-errno.EINVAL if error else 0}", "", ""])


def parse_applied(answer: str) -> tuple[list[str], str]:
    """Read the answer: the steps taken, and the error or "". Raises UapiError if it does not answer this request."""
    lines = [line.partition("=")[::2] for line in answer.splitlines()]
    said = [(name, unquote(value)) for name, value in lines if name in ("step", "error")]
    error = "\n".join(value for name, value in said if name == "error")
    if not answer.endswith("\n\n") or (not error and ("errno", "0") not in lines):
        raise UapiError("not an answer to apply")
    return [value for name, value in said if name == "step"], error
