"""Network namespaces for tests: a test body in a fresh one, and in a named one."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import pytest

from wgpy.labs import netns
from wgpy.labs.netns import veth_pair as veth_pair

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_FAILED, _SKIPPED = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def in_fresh_namespace(test: Callable[..., None]) -> Callable[..., None]:
    """Decorate a test: its body runs in a child process, in a network namespace of its own with `lo` up."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        def enter() -> None:
            _check(_libc.unshare(_CLONE_NEWNET))
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

        _run_in_child(enter, functools.partial(test, *args, **kwargs))

    return wrapper


class Namespace(netns.Namespace):
    """A named network namespace, in which functions of a test can run, too."""

    def __init__(self) -> None:
        require_root()
        super().__init__()

    def call(self, body: Callable[[], None]) -> None:
        """Run a function inside, in a child process; what it raises fails the test here."""
        _run_in_child(self._enter, body)

    def make(self, function: Callable[[], T]) -> T:
        """What a function opens inside, such as a socket or a TUN, for this process, which stays outside."""

        def inside() -> T:
            self._enter()
            return function()

        with ThreadPoolExecutor(1) as executor:  # setns moves the calling thread, and no other
            return executor.submit(inside).result()

    def udp_socket(self) -> socket.socket:
        """A UDP socket over IPv4 that is inside, though this process is not."""
        return self.make(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def _enter(self) -> None:
        with open(f"/run/netns/{self.name}") as namespace:
            _check(_libc.setns(namespace.fileno(), _CLONE_NEWNET))


def require_root() -> None:
    """Skip the running test where namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")


def is_settled(namespace: netns.Namespace) -> bool:
    """Whether each card that is up has its link-local address, and no address is tentative (RFC 4862, 5.4).

    A test that compares addresses and routes waits for it first. It asks for the address itself, since the kernel adds
    it some time after the card is up: until then nothing is tentative either.
    """
    links = json.loads(namespace.run("ip", "-json", "address"))
    cards = [link for link in links if link["link_type"] == "ether" and "LOWER_UP" in link["flags"]]
    local = [link for link in links if any(own["scope"] == "link" for own in link["addr_info"])]
    return all(card in local for card in cards) and not any(
        own.get("tentative") for link in links for own in link["addr_info"]
    )


def _run_in_child(enter: Callable[[], None], body: Callable[[], None]) -> None:
    require_root()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: the child only runs the body
        child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(_outcome(enter, body, writer))
    os.close(writer)
    with open(reader) as pipe:
        message = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == _SKIPPED:
        pytest.skip(message)
    if status:
        pytest.fail(message or f"the child exited with {status}", pytrace=False)


def _outcome(enter: Callable[[], None], body: Callable[[], None], writer: int) -> int:
    status, message = 0, ""
    try:
        enter()
        body()
    except pytest.skip.Exception as skipped:
        status, message = _SKIPPED, str(skipped)
    except BaseException:
        status, message = _FAILED, traceback.format_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    with open(writer, "w") as pipe:
        pipe.write(message)
    return status


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
