"""Many who sign in at once, from many addresses: what that costs is bounded, and other requests are answered."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from ipaddress import ip_address
from urllib.parse import urlencode

import pytest

from tests.gateway.web.conftest import serving
from tests.gateway.web.sign_in.person import URL
from tests.support.peers import wait_for
from wgpy.gateway.identity.passwords import Hasher
from wgpy.gateway.web.app import application
from wgpy.gateway.web.server import THREADS
from wgpy.gateway.web.sign_in import ldap
from wgpy.gateway.web.site import Site

FLOOD = THREADS + 10
HOST = URL.removeprefix("https://")


class Stuck:
    """An argon2 that takes as long as the test wants."""

    def __init__(self) -> None:
        self.entered, self.go = 0, threading.Event()

    def hash(self, _: bytes) -> str:
        self.entered += 1
        self.go.wait(60)
        return "$"


def ask(port: int, method: str, path: str, number: int, body: str = "") -> int:
    """The status of the answer to a request from an address of its own, which a proxy forwards."""
    headers = {
        "Host": HOST, "Origin": URL, "X-Forwarded-For": f"198.51.100.{number}", "X-Forwarded-Proto": "https",
        "Content-Type": "application/x-www-form-urlencoded",
    }  # fmt: skip
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_flood_of_unknown_names_is_refused_and_pages_are_answered_meanwhile(site: Site) -> None:
    argon2 = Stuck()
    site.hasher._argon2 = argon2  # type: ignore[assignment]
    answers: list[int] = []

    def attempt(number: int) -> None:
        form = urlencode({"name": f"nobody-{number}", "password": "wrong" * 4, "csrf_token": ""})
        answers.append(ask(port, "POST", "/sign-in", number, form))

    proxy = ip_address("127.0.0.1")
    with (
        serving(application(site), lambda web: web.listen_tcp("127.0.0.1:0", None, proxy)) as port,
        ThreadPoolExecutor(FLOOD) as threads,
    ):
        try:
            for number in range(FLOOD):
                threads.submit(attempt, number)
            assert wait_for(lambda: len(answers) >= FLOOD - site.hasher.most, 60)
            assert {*answers} == {503}
            assert len(answers) == FLOOD - site.hasher.most
            assert ask(port, "GET", "/sign-in", 200) == 200
            assert argon2.entered < site.hasher.most
        finally:
            argon2.go.set()
    assert sorted(answers) == [403] * site.hasher.most + [503] * (FLOOD - site.hasher.most)


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_those_who_sign_in_leave_threads_for_others(cores: int) -> None:
    assert Hasher(at_once=min(cores, 8)).most + ldap.AT_ONCE <= THREADS - 4
