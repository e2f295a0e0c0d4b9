"""dex, an identity provider that we did not write (Apache 2.0, in Go), where tests/support/packages.sh could build it.

It runs at http://127.0.0.1:PORT/dex, and keeps all in memory, so one that is started again knows no former sign-in.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = shutil.which("dex")
CLIENT: Final = ("vpn", "a secret & more")
PASSWORD: Final = "correct horse battery staple"
_HASH: Final = "$2b$10$abcdefghijklmnopqrstuuGGgFFcYeueaAql8Z7U7CnCTRw4DR77W"  # bcrypt of it
_ALICE: Final = {"email": "alice@example.org", "username": "alice", "userID": "4711", "hash": _HASH}


@contextmanager
def dex(directory: Path, redirect_uri: str, port: int = 0, *, connector: str = "") -> Iterator[int]:
    """Run it, and yield its port. People are Alice with PASSWORD, or those of a connector, such as mockCallback."""
    assert PROGRAM
    with socket.create_server(("127.0.0.1", port)) as free:
        port = free.getsockname()[1]
    settings: dict[str, Any] = {
        "issuer": f"http://127.0.0.1:{port}/dex",
        "storage": {"type": "memory"},
        "web": {"http": f"127.0.0.1:{port}"},
        "oauth2": {"skipApprovalScreen": True},
        "staticClients": [
            {"id": CLIENT[0], "secret": CLIENT[1], "name": "wgpy", "redirectURIs": [redirect_uri]},
        ],
    }
    if connector:
        settings["connectors"] = [{"type": connector, "id": "mock", "name": "mock"}]
    else:
        settings |= {"enablePasswordDB": True, "staticPasswords": [_ALICE]}
    file = directory / "dex.json"
    file.write_text(json.dumps(settings))  # JSON is YAML
    process = subprocess.Popen(
        [PROGRAM, "serve", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if "listening on" in line:
                break
        else:
            raise AssertionError(f"dex has ended: {said}")
        yield port
    finally:
        process.kill()
        process.communicate()
