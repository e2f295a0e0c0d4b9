"""Traffic between namespaces, and its measurements: ping, iperf3, curl."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from wgpy.errors import LabError
from wgpy.labs.netns import Namespace


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Poll until the condition holds. Returns whether it did within the time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def iperf3(client: Namespace, server: Namespace, address: str, *options: str) -> dict[str, Any]:
    """Run iperf3 to `address`, and return the "end" part of its report. `options` say how long, or how much."""
    listening = f"{address}:5201" if ":" not in address else f"[{address}]:5201"
    for _ in range(3):
        process = server.popen(
            "iperf3", "-s", "-1", "-B", address, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if not wait_for(lambda: listening in server.run("ss", "-Hltn")):
            raise LabError("iperf3 does not listen")
        command = ("iperf3", "-c", address, "--json", *options)
        said = client.run(*command, check=False, timeout=60)
        if "{" not in said:
            raise LabError(f"iperf3: {said.strip() or 'no report'}")
        report: dict[str, Any] = json.loads(said[said.index("{") :])  # it may begin with a warning
        process.terminate()
        process.wait(10)
        if report["end"]:  # for UDP it begins with one datagram, and gives up if that is lost
            break
    if not report["end"]:
        raise LabError(f"iperf3: {report.get('error', 'no report')}")
    end: dict[str, Any] = report["end"]
    return end


@dataclass(frozen=True, slots=True)
class Pings:
    """The result of a run of ping. Times are in milliseconds, `gap` is the longest time without an answer, in seconds.

    `missed` counts the requests without an answer, up to the last that was answered: later ones may be on their way.
    """

    sent: int
    received: int
    missed: int
    median_ms: float
    gap: float

    def __bool__(self) -> bool:
        return self.received > 0

    def __str__(self) -> str:
        return f"{self.received} of {self.sent}"


_ANSWER: Final = re.compile(r"icmp_seq=(\d+) .*time=([0-9.]+) ms")


class Ping:
    """A ping that runs until `result` is called; `interval` is in seconds."""

    def __init__(self, source: Namespace, address: str, *options: str, interval: float = 0.1) -> None:
        self._interval = interval
        command = ("ping", "-n", "-i", str(interval), "-W", "2", *options, address)
        self._process = source.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def result(self) -> Pings:
        """End the ping, or wait for its end if it has a count, and return its result."""
        if "-c" not in self._process.args:  # type: ignore[operator]
            self._process.send_signal(signal.SIGINT)
        said = self._process.communicate(timeout=30)[0]
        answers = {int(number): float(ms) for number, ms in _ANSWER.findall(said)}
        counts = re.search(r"(\d+) packets transmitted", said)
        if counts is None:
            raise LabError(f"ping: {said}")
        times = sorted(answers.values())
        sent = int(counts[1])
        holes = [b - a - 1 for a, b in pairwise([0, *sorted(answers)])]
        gap = max([*holes, sent - max(answers, default=0)]) * self._interval
        return Pings(sent, len(answers), sum(holes), times[len(times) // 2] if times else 0.0, gap)


def ping(source: Namespace, address: str, *options: str, count: int = 3, interval: float = 0.1) -> Pings:
    """Send `count` echo requests and wait for the answers."""
    return Ping(source, address, "-c", str(count), *options, interval=interval).result()


_WEB: Final = """\
import http.server, socketserver, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path.startswith("/bytes/"):
            self.wfile.write(bytes(int(self.path[7:])))
        else:
            self.wfile.write(sys.argv[3].replace("CLIENT", self.client_address[0]).encode())
    def log_message(self, *_): pass
server = socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Answer)
print("ready", flush=True)
server.serve_forever()
"""


def serve_web(server: Namespace, address: str, port: int, text: str) -> None:
    """Run a web server until the lab ends: /bytes/N has N bytes, any other page is `text` with CLIENT filled in."""
    start(server, sys.executable, "-c", _WEB, address, str(port), text)


def fetch(client: Namespace, url: str, *options: str, seconds: float = 20) -> str:
    """Fetch a URL and return its content; empty if that fails or takes longer than `seconds`."""
    return client.run("curl", "-s", "-m", str(seconds), *options, url, check=False)


def serve_names(server: Namespace, address: str, **names: str) -> None:
    """Run a name server that knows these names and their addresses."""
    words = [f"{name}={its_address}" for name, its_address in names.items()]
    start(server, sys.executable, "-m", "wgpy.labs.nameserver", address, *words)


def start(namespace: Namespace, *command: str) -> None:
    """Start a program that says "ready"; it ends with the lab. Raises LabError if it does not start."""
    process = namespace.popen(*command, stdout=subprocess.PIPE, start_new_session=True)  # Ctrl-C is for the lab
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise LabError(f"{' '.join(command[:3])} did not start")
