"""Answers that are not as netlink(7) says, from a socket pair in the kernel's place: each ends, and none raises."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack

import pytest

from wgpy.system import rtnetlink

ROUTE, DONE, ERROR = 24, 3, 2
BODY = pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
MTU = pack("=HHI", 8, 2, 1300)


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    return pack("=IHHII", 16 + len(body) if length is None else length, kind, 0, 1, 0) + body


def route(attributes: bytes) -> bytes:
    return message(ROUTE, BODY + attributes)


GOOD = route(pack("=HH", 12, 8) + MTU)
END = message(DONE, bytes(4))


def told(*answers: bytes) -> set[int]:
    """What is found in the answers to the request for IPv4, and then for IPv6."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, kernel:
        ours.settimeout(2)
        for answer in answers:
            kernel.send(answer)
        return rtnetlink.route_mtus(ours, 7)


def test_routes_in_several_messages_are_all_read() -> None:
    assert told(GOOD + END, GOOD.replace(pack("=I", 1300), pack("=I", 1400)), END) == {1300, 1400}


@pytest.mark.parametrize(
    "broken",
    [
        route(pack("=HH", 0, 4) + MTU),  # an attribute of length 0, and one within an attribute
        route(pack("=HH", 12, 8) + MTU.replace(b"\x08", b"\x00") + pack("=HH", 12, 8) + MTU),
        route(pack("=HH", 3, 8) + MTU),
        route(pack("=HH", 400, 8) + MTU),
        route(MTU + b"\x08"),
        message(ROUTE, BODY + MTU, length=0),
        message(ROUTE, BODY + MTU, length=15),
        message(ROUTE, BODY + MTU, length=4000),
        message(ROUTE, MTU),
        GOOD[:10],
    ],
)
def test_a_malformed_answer_ends_reading_and_what_was_read_counts(broken: bytes) -> None:
    assert told(GOOD + broken + END, END) <= {1300}


@pytest.mark.parametrize(
    "answer", [b"", b"\x00" * 8, message(ERROR, b""), message(ERROR, b"", length=0), message(DONE, bytes(4)), GOOD]
)
def test_a_request_without_a_proper_answer_has_failed(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(answer, monkeypatch), pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
        rtnetlink.set_up("lo")


def test_a_request_that_is_refused_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(message(ERROR, pack("=i", 0)), monkeypatch):
        rtnetlink.set_up("lo")
    with answering(message(ERROR, pack("=i", -errno.EPERM)), monkeypatch), pytest.raises(PermissionError):
        rtnetlink.set_up("lo")


@contextmanager
def answering(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Netlink:
        def __init__(self, *kind: int) -> None:
            pass

        def __enter__(self) -> Netlink:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def sendto(self, request: bytes, address: object) -> None:
            pass

        def recv(self, size: int) -> bytes:
            return answer

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Netlink)
        yield
