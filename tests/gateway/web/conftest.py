"""A site with a stand-in for the running gateway, and its web server in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
from anyio.from_thread import start_blocking_portal
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from tests.gateway.conftest import Places
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.sessions import NOTHING, Traffic
from wgpy.gateway.policy.traffic import Rate
from wgpy.gateway.store import endpoint
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.app import application
from wgpy.gateway.web.server import WebServer
from wgpy.gateway.web.site import Site

T = TypeVar("T")
URL = "https://vpn.example.org"


@dataclass
class Running:
    """What handlers see of the gateway's process."""

    endpoint: Endpoint
    active: int = 0
    stalled: float = 0.0
    ailment: str = ""
    total: Traffic = NOTHING
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    passed: list[Rate] = field(default_factory=list)

    def rates(self) -> list[Rate]:
        return self.passed


@pytest.fixture(scope="module", autouse=True)
def _one_loop() -> Iterator[None]:
    """One event loop answers the requests of all clients of a module: to make one takes longer than to answer."""
    with start_blocking_portal() as portal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestClient, "portal", portal)
        yield


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """One kind of database is enough here: tests/gateway/store compares them."""
    return lambda name: tmp_path / f"{name}.db"


@pytest.fixture
def site(database: Database) -> Site:
    """The gateway of `database`, at https://vpn.example.org."""
    with database.change("root") as change:
        settings = replace(endpoint.find(change.connection), url=URL)
        endpoint.replace(change, settings)
    return Site(database=database, service=Running(settings), wall=lambda: 1000.0)


@pytest.fixture
def client(site: Site) -> TestClient:
    """A client of the whole application, without a server between them, as if it came over TLS."""
    return TestClient(application(site), URL, client=("192.0.2.9", 50000), follow_redirects=False)


@contextmanager
def serving(
    app: ASGIApp, listen: Callable[[WebServer], T], close: Callable[[], Awaitable[None]] | None = None
) -> Iterator[T]:
    """Run the web server in another thread. Yields what `listen`, which is called there, returns.

    In the end `close` is called there, for what the application has opened.
    """
    started: Future[tuple[T, Callable[[], object]]] = Future()

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        server = WebServer(app)
        try:
            started.set_result((listen(server), lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()
        except Exception as error:
            started.set_exception(error)
        finally:
            await server.close()
            if close:
                await close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    found, stop = started.result(10)
    try:
        yield found
    finally:
        stop()
        thread.join()


@pytest.fixture
def socket_at(tmp_path: Path) -> Path:
    return tmp_path / "run" / "gateway-wg0.sock"
