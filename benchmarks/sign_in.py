"""How many people a minute can sign in: python -m benchmarks.sign_in

Each sends a name and a password, and then the code of an authenticator app, over a TLS connection of their own to the
gateway's web server, which is a process of its own with a database of 10,000 devices. Prints sign-ins per minute, what
the server spends on each, and its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast
from urllib.parse import urlencode

from pyotp import TOTP

from benchmarks.gateway import fill
from wgpy.gateway.identity import totp
from wgpy.gateway.identity.passwords import Hasher
from wgpy.gateway.store import credentials, endpoint
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.app import application
from wgpy.gateway.web.certificate import own_certificate
from wgpy.gateway.web.server import WebServer
from wgpy.gateway.web.site import Service, Site

URL: Final = "https://localhost:8443"
PASSWORD, SEED = "four plain words here", b"12345678901234567890"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200, help="how many sign in (default: 200)")
    parser.add_argument("--at-once", type=int, default=8, help="how many at once (default: 8)")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    with tempfile.TemporaryDirectory() as directory:
        database = fill(Path(directory) / "gateway.db", Path(directory) / "gateway.key", arguments.devices, 200)
        give_credentials(database, arguments.people)
        database.close()
        measure(Path(directory), arguments.people, arguments.at_once)


def give_credentials(database: Database, people: int) -> None:
    """Give the first users a password and an app; each the same, because hashing thousands takes minutes."""
    encoded = Hasher().hash(PASSWORD)
    with database.change("benchmark") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), url=URL))
        for number in range(people):
            credentials.set_password(change, f"u{number}", encoded)
            credentials.set_totp(change, f"u{number}", SEED, 0, [])


async def serve(directory: Path) -> None:
    """Serve until standard input ends. Prints the port, and in the end what that took."""
    database = Database(directory / "gateway.db", directory / "gateway.key")
    with database.read() as connection:
        settings = endpoint.find(connection)
    site = Site(database=database, service=cast(Service, SimpleNamespace(endpoint=settings)))
    server = WebServer(application(site))
    print(
        server.listen_tcp("127.0.0.1:0", own_certificate(directory / "https.pem", URL, datetime.now(UTC))), flush=True
    )
    before = time.process_time()
    await asyncio.to_thread(sys.stdin.read)
    cpu, memory = time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    await server.close()
    print(json.dumps({"cpu": cpu, "memory": memory}))


def measure(directory: Path, people: int, at_once: int) -> None:
    command = [sys.executable, "-m", "benchmarks.sign_in", "--serve", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        started = time.monotonic()
        with ThreadPoolExecutor(at_once) as threads:
            done = sum(threads.map(partial(sign_in, port), range(people)))
        took = time.monotonic() - started
        said, _ = server.communicate("")
    used = json.loads(said)
    print(f"{'sign-ins per minute':45} {done / took * 60:7.0f}")
    print(f"{'CPU time of the server for each':45} {used['cpu'] / done * 1000:7.0f} ms")
    print(f"{'memory of the server at most':45} {used['memory']:7.0f} MB")


def sign_in(port: int, number: int) -> bool:
    """Sign a user in. Raises AssertionError if that fails."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
    half = send(connection, "/sign-in", "", name=f"u{number}", password=PASSWORD)
    send(connection, "/sign-in/second/code", half, code=TOTP(totp.text(SEED)).now())
    connection.close()
    return True


def send(connection: HTTPSConnection, path: str, cookie: str, **fields: str) -> str:
    """Send a form. Returns the cookies that come back."""
    headers: dict[str, Any] = {
        "Host": URL.removeprefix("https://"), "Origin": URL, "Cookie": cookie,
        "Content-Type": "application/x-www-form-urlencoded",
    }  # fmt: skip
    connection.request("POST", path, urlencode({**fields, "csrf_token": ""}), headers)
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 303, (response.status, text)
    return "; ".join(each.partition(";")[0] for each in response.headers.get_all("Set-Cookie", []))


if __name__ == "__main__":
    main()
