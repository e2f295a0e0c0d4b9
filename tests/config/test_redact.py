"""Errors about files and command lines never repeat a key that is in the wrong place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_commands import wgpy
from wgpy.cli.commands import MODULES
from wgpy.config import services, wg, wgquick
from wgpy.config.redact import redacted, shown
from wgpy.config.wgquick import KEYS
from wgpy.errors import ConfigError
from wgpy.keys import PrivateKey

KEY = PrivateKey(bytes(range(7, 39))).base64()
PIECES = (KEY, KEY[:-1], KEY[:30], f'"{KEY}"', f"{KEY}:51820", KEY.lower(), PrivateKey(bytes(range(7, 39))).hex())


def leaks(text: str, secret: str) -> bool:
    """Whether a text has ten characters of a secret in a row."""
    return any(secret[start : start + 10] in text for start in range(len(secret) - 9))


def errors(read: Callable[[str], object], text: str) -> str:
    try:
        read(text)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("piece", [*PIECES, " ".join(KEY[start : start + 9] for start in range(0, 44, 9))])
@pytest.mark.parametrize("key", [*KEYS, "bindaddress", "target", "listenport", "nonsense", ""])
def test_an_error_anywhere_in_a_file_does_not_repeat_a_key(key: str, piece: str) -> None:
    sections = ("Interface", "Peer", "Socks5", "http", "TCPClientTunnel", "TCPServerTunnel", "STDIOTunnel", "Nonsense")
    for section in sections:
        text = f"[{section}]\n{key}{' = ' if key else ''}{piece}\n"
        for read in (wgquick.parse, wg.parse, services.split):
            assert not leaks(errors(read, text), piece)


@pytest.mark.parametrize("piece", PIECES)
def test_a_forward_does_not_repeat_a_key(piece: str) -> None:
    for text in (piece, f"{piece}:1:2", f"1:{piece}", f"1:[{piece}]:2", f"{piece}/udp"):
        assert not leaks(errors(services.parse_forward, text), piece)


@pytest.mark.parametrize("verb", [name for names in MODULES.values() for name in names if name != "lab"])
def test_no_command_repeats_a_key_from_its_arguments(verb: str, tmp_path: Path) -> None:
    file = tmp_path / "absent0.conf"
    file.touch(mode=0o600)
    for arguments in ([KEY], ["--config", str(file), "add", KEY], ["absent0", KEY], ["absent0", "peer", KEY, KEY]):
        done = wgpy(verb, *arguments)
        assert not leaks(done.stdout + done.stderr, KEY), done.stderr


def test_a_text_that_is_not_a_key_is_repeated() -> None:
    for value in ("10.0.0.0/33", "vpn.example.org:0", "2001:db8:85a3:8d3:1319:8a2e:370:7348/129", "wg0"):
        assert shown(value) == repr(value)
    path = "/var/lib/docker/overlay2/Abcdefghijkl0123456789/merged/etc/wireguard/wg0.conf"
    assert redacted(f"{path}: No such file or directory") == f"{path}: No such file or directory"
    assert redacted(f"wg set wg0 private-key <(echo {KEY})") == "wg set wg0 private-key <(echo (not shown))"
