"""Addresses written as numbers: looked up once, where nothing but the arguments decides."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from wgpy.rootless import names


def look_up(host: str | None, port: int | str, flags: int = 0) -> list[Any]:
    tunnel = cast(Any, None)  # which only names ask for
    return asyncio.run(names.look_up(tunnel, host, port, 0, socket.SOCK_STREAM, 0, flags))


@pytest.mark.parametrize("host", ["10.0.0.2", "fd00::2", "::ffff:10.0.0.2", None])
def test_numbers_are_found_as_the_system_finds_them(host: str | None) -> None:
    for _ in range(2):
        found = look_up(host, 80)
        assert found == socket.getaddrinfo(host, 80, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        assert all(isinstance(info[0], socket.AddressFamily) for info in found)
        found.clear()  # which is the caller's own


def test_what_else_decides_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's number is in a file, a scope is an interface, and flags may ask for the system's own addresses."""
    names._numeric_once.cache_clear()
    asked = []

    def getaddrinfo(*arguments: Any) -> list[Any]:
        asked.append(arguments[0])
        return []

    monkeypatch.setattr(names, "system_getaddrinfo", getaddrinfo)
    for _ in range(2):
        look_up("10.0.0.2", "http")
        look_up("fe80::1%1", 80)
        look_up("10.0.0.3", 80, socket.AI_ADDRCONFIG)
        look_up("10.0.0.4", 80)
    names._numeric_once.cache_clear()
    assert asked == [b"10.0.0.2", b"fe80::1%1", b"10.0.0.3", b"10.0.0.4", b"10.0.0.2", b"fe80::1%1", b"10.0.0.3"]
