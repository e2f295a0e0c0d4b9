"""`wgpy showconf`, `set`, `setconf`, `addconf` and `syncconf`, like those of `wg`, for any WireGuard interface."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from wgpy import control
from wgpy.cli.show import allowed_ips, endpoint
from wgpy.config import wg
from wgpy.config.redact import shown
from wgpy.config.values import EndpointName
from wgpy.config.wgquick import read_value
from wgpy.daemon.files import read_text
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError, ControlError, KeyFormatError
from wgpy.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey

_Secret = TypeVar("_Secret", PrivateKey, PresharedKey)
_SETTINGS: Final = (
    "[listen-port PORT] [fwmark MARK|off] [private-key FILE] [peer PUBLIC-KEY [remove] [preshared-key FILE] "
    "[endpoint HOST:PORT] [persistent-keepalive SECONDS|off] [allowed-ips [+|-]NETWORK,...]]..."
)


def add(verbs: Any) -> None:
    """Add the commands to the command line."""
    showconf = verbs.add_parser(
        "showconf",
        help="print the configuration of an interface, for setconf",
        description="Print an interface's configuration, with its secret keys, as a file for setconf.",
    )
    showconf.set_defaults(call=_showconf)
    setting = verbs.add_parser(
        "set",
        help="change an interface, and add, change or remove peers",
        usage=f"wgpy set INTERFACE {_SETTINGS}",
        description="Change a running interface. Keys are read from files (/dev/stdin works); an empty file removes "
        "the key. allowed-ips replaces the list, unless each network has a + to add it or a - to remove it.",
    )
    setting.set_defaults(call=_set)
    verbs_of_files = [
        ("setconf", "replace the configuration of an interface by that in a file", _setconf),
        ("addconf", "add the configuration in a file to that of an interface", _addconf),
        ("syncconf", "like setconf, but peers that stay keep their sessions", _syncconf),
    ]
    for name, text, call in verbs_of_files:
        verb = verbs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. The file is in the format of wg(8), without wg-quick's own "
            "keys. If anything in it is wrong, nothing is changed.",
        )
        verb.set_defaults(call=call)
        verb.add_argument("interface", metavar="INTERFACE", help="its name")
        verb.add_argument("file", metavar="FILE", help="the file; /dev/stdin works, too")
    for verb in (showconf, setting):
        verb.add_argument("interface", metavar="INTERFACE", help="its name")
    setting.add_argument("settings", metavar="SETTING", nargs=argparse.REMAINDER, help=_SETTINGS)


def _showconf(arguments: argparse.Namespace) -> int:
    print(as_file(_status(arguments.interface)), end="")
    return 0


def _set(arguments: argparse.Namespace) -> int:
    if not arguments.settings:
        raise ConfigError(f"nothing to set: expected {_SETTINGS}")
    _apply(arguments.interface, _located(change_from(arguments.settings)))
    return 0


def _setconf(arguments: argparse.Namespace) -> int:
    _apply(arguments.interface, wg.replacing(_from_file(arguments.file)))
    return 0


def _addconf(arguments: argparse.Namespace) -> int:
    _apply(arguments.interface, _from_file(arguments.file))
    return 0


def _syncconf(arguments: argparse.Namespace) -> int:
    change = _from_file(arguments.file)
    _apply(arguments.interface, wg.synchronizing(change, _status(arguments.interface)))
    return 0


def _status(name: str) -> DeviceStatus:
    try:
        return control.status(name)
    except ControlError as error:
        raise ControlError(f"Unable to access interface {name}: {error}") from error


def _apply(name: str, change: DeviceChange) -> None:
    try:
        control.configure(name, change)
    except ControlError as error:
        raise ControlError(f"Unable to modify interface {name}: {error}") from error


def _from_file(path: str) -> DeviceChange:
    change = wg.parse(read_text(Path(path)), path)
    for problem in change.warnings:
        print(f"{problem} (warning)", file=sys.stderr)
    return _located(change)


def _located(change: wg.WgChange) -> DeviceChange:
    return change.located(_resolve(change.endpoints) if change.endpoints else {})


def _resolve(names: Mapping[PublicKey, EndpointName]) -> dict[PublicKey, Endpoint]:
    import asyncio  # most commands resolve no names

    from wgpy.net.resolve import resolve

    async def all_at_once() -> list[Endpoint]:
        return await asyncio.gather(*(resolve(name) for name in names.values()))

    return dict(zip(names, asyncio.run(all_at_once()), strict=True))


def change_from(words: list[str]) -> wg.WgChange:
    """Parse the settings of `wg set`, and read its key files. Raises ConfigError and KeyFormatError."""
    device: dict[str, Any] = {}
    peers: list[PeerChange] = []
    endpoints: dict[PublicKey, EndpointName] = {}
    rest = iter(words)
    for word in rest:
        if word not in (_OF_PEER if peers else _OF_DEVICE):
            raise ConfigError(f"Invalid argument: {_shown(word, bool(peers))}")
        if word == "remove":
            peers[-1] = replace(peers[-1], remove=True)
            continue
        if (value := next(rest, None)) is None:
            raise ConfigError(f"{word}: expected a value after it")
        match word:
            case "peer":
                peers.append(PeerChange(public_key=read_value("PublicKey", value)))
            case "private-key":
                device["private_key"] = _key_in(word, value, PrivateKey)
            case "listen-port":
                device["listen_port"] = read_value("ListenPort", value)
            case "fwmark":
                device["fwmark"] = read_value("FwMark", value)
            case "preshared-key":
                peers[-1] = replace(peers[-1], preshared_key=_key_in(word, value, PresharedKey))
            case "endpoint":
                endpoints[peers[-1].public_key] = read_value("Endpoint", value)
            case "persistent-keepalive":
                peers[-1] = replace(peers[-1], persistent_keepalive=read_value("PersistentKeepalive", value))
            case "allowed-ips":
                peers[-1] = _with_allowed_ips(peers[-1], "".join(value.split()))
    return wg.WgChange(DeviceChange(**device, peers=tuple(peers)), endpoints)


_OF_DEVICE: Final = frozenset({"listen-port", "fwmark", "private-key", "peer"})
_OF_PEER: Final = frozenset({"peer", "remove", "preshared-key", "endpoint", "persistent-keepalive", "allowed-ips"})


def _shown(word: str, after_peer: bool) -> str:
    """The error message for a wrong word, which is not shown if it may be a key in the wrong place."""
    other, place = (_OF_DEVICE, "before the first") if after_peer else (_OF_PEER, "after a")
    if word in other:
        return f"{word} belongs {place} peer"
    expected = ", ".join(sorted(_OF_PEER if after_peer else _OF_DEVICE))
    return f"{shown(word)}; expected one of {expected}"


def _with_allowed_ips(peer: PeerChange, text: str) -> PeerChange:
    """Add a list of allowed IPs, which replaces the peer's unless every item has a sign."""
    changes = list(peer.allowed_ips)
    replaces = peer.replace_allowed_ips or not text
    for item in text.split(",") if text else []:
        signed = item.startswith(("+", "-"))
        address = read_value("AllowedIPs", item[signed:])
        if address.ip != address.network.network_address:
            print(f"Warning: AllowedIP has nonzero host part: {item[signed:]}", file=sys.stderr)
        changes.append(AllowedIPChange(address.network, item.startswith("-")))
        replaces = replaces or not signed
    return replace(peer, allowed_ips=tuple(changes), replace_allowed_ips=replaces)


def _key_in(word: str, path: str, kind: type[_Secret]) -> _Secret:
    """Read the key in a file; an empty file is the all-zero key, which means none. Raises ConfigError."""
    try:
        kind.from_base64(path)
    except KeyFormatError:
        pass
    else:
        raise ConfigError(
            f"{word}: expected a file, not the key, because every user can see command lines (/dev/stdin works)"
        )
    try:
        text = read_text(Path(path)).rstrip()
        return kind.from_base64(text) if text else kind(bytes(KEY_SIZE))
    except KeyFormatError:
        raise ConfigError(f"{word}: {path}: Key is not the correct length or format") from None
    except ConfigError as error:
        raise ConfigError(f"{word}: {error}") from error


def as_file(status: DeviceStatus) -> str:
    """Format a status like `wg showconf`, including the secret keys."""
    lines = ["[Interface]"]
    if status.listen_port:
        lines.append(f"ListenPort = {status.listen_port}")
    if status.fwmark:
        lines.append(f"FwMark = {status.fwmark:#x}")
    if status.private_key:
        lines.append(f"PrivateKey = {status.private_key.base64()}")
    for peer in status.peers:
        lines += ["", "[Peer]", f"PublicKey = {peer.public_key.base64()}"]
        if peer.preshared_key:
            lines.append(f"PresharedKey = {peer.preshared_key.base64()}")
        if peer.allowed_ips:
            lines.append(f"AllowedIPs = {', '.join(allowed_ips(peer))}")
        if peer.endpoint:
            lines.append(f"Endpoint = {endpoint(peer)}")
        if peer.persistent_keepalive:
            lines.append(f"PersistentKeepalive = {peer.persistent_keepalive}")
    return "\n".join([*lines, *([""] if not status.peers else []), ""])
