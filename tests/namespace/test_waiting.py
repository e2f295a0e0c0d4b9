"""The loop goes on while a tunnel is opened, used and closed: whatever takes long is done in another thread."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

import wgpy
from tests.namespace.conftest import PORT, Server
from tests.namespace.test_ends import helpers
from tests.support.nobody import as_nobody
from tests.support.peers import wait_for

pytestmark = pytest.mark.root

# What takes long, as Python's audit hooks and a wrapped os.close tell it, and the thread that did it.
WATCHED = """
import asyncio, concurrent.futures.thread, encodings.idna, json, os, subprocess, sys, threading
import wgpy
connect = wgpy.connect
path, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen, watching, opened = [], False, set()

def note(what):
    if watching and threading.current_thread() is threading.main_thread():
        seen.append(what)

def hook(event, arguments):
    if event == "import" and arguments[1] is not None or event in ("open", "subprocess.Popen", "os.fork", "os.forkpty"):
        note([event, str(arguments[0])])
    if event == "socket.getaddrinfo":
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
        if not set(host) <= set("0123456789abcdef.:"):
            note([event, host])

def is_tun(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "/dev/net/tun" and sum(
            os.readlink(f"/proc/self/fd/{other}") == "/dev/net/tun" for other in os.listdir("/proc/self/fd")
            if other != str(fd) and os.path.exists(f"/proc/self/fd/{other}")) == 0
    except OSError:
        return False

def close(fd, really=os.close):
    global watching
    if threading.current_thread() is threading.main_thread() and watching:
        watching = False
        last = is_tun(fd)
        watching = True
        if last:
            note(["close", "the last of a TUN"])
    really(fd)
os.close = close

def wait(self, *arguments, really=subprocess.Popen.wait, **more):
    note(["wait", "for a process"])
    return really(self, *arguments, **more)
subprocess.Popen.wait = wait

async def main():
    global watching
    sys.addaudithook(hook)
    watching = True
    async with connect(path) as tunnel:
        _, writer = await tunnel.open_connection(host, port)
        writer.close()
        try:
            await tunnel.getaddrinfo("nowhere.test", 1)
        except wgpy.ResolveError:
            pass
    watching = False
    print(json.dumps(seen))
asyncio.run(main())
"""


def test_nothing_slow_runs_on_the_loop(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o600)
    path.write_text(server.text)
    command = (sys.executable, "-c", WATCHED, str(path), server.address, str(PORT))
    assert json.loads(server.client.run(*command, stderr=subprocess.PIPE)) == []


def test_the_first_use_of_connect_imports_next_to_nothing() -> None:
    """It may be within a coroutine: NumPy and the tunnel come in the thread."""
    loaded = "import asyncio, json, sys, wgpy; wgpy.connect; print(json.dumps(list(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout)
    own = {module for module in modules if module.startswith("wgpy.")}
    assert own == {"wgpy.errors", "wgpy.rootless", "wgpy.rootless.connect"}
    assert not {"numpy", "cryptography", "ctypes"}.intersection(modules)


def test_a_cancelled_connect_leaves_no_helper(server: Server) -> None:
    """At each turn of the loop on the way up."""

    async def main() -> None:
        async def connected() -> None:
            async with wgpy.connect(server.config):
                await asyncio.Event().wait()

        for turns in (0, 1, 2, 5, 20):
            task = asyncio.create_task(connected())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        for seconds in (0.005, 0.05):
            task = asyncio.create_task(connected())
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await asyncio.to_thread(wait_for, lambda: not helpers())

    as_nobody(server.client, main)
