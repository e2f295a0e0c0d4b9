"""Eight clients, each in a namespace of its own, upload through a gateway at once, and then download.

The gateway is wgpy with a worker for each of two cores, or wireguard-go. The clients are wireguard-go in either case.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.goals import GO, WGPY
from benchmarks.plan import Plan
from benchmarks.traffic import WITH_CUBIC
from benchmarks.tunnels import PROGRAMS
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import CurrentWireguardGo, Interface, Side, StartedWgpy, peer_section, wait_for

CLIENTS: Final = 8
FIRST_PORT: Final = 5201
OUTER: Final = "10.3.0.1"  # the gateway's, on its loopback interface
OPTIONS: Final = {"clients_up": WITH_CUBIC, "clients_down": (*WITH_CUBIC, "-R")}  # of iperf3


def measure(plan: Plan) -> None:
    """iperf3 of eight clients at once through a gateway with two workers, against wireguard-go."""
    if reason := PROGRAMS[GO].missing():
        plan.leave_out("eight clients", reason)
        return
    for number in range(plan.rounds):
        for name in (WGPY, GO) if number % 2 else (GO, WGPY):
            plan.attempt(f"eight clients of {name}", partial(_round, plan, number, name))


def _round(plan: Plan, number: int, name: str) -> None:
    with ExitStack() as cleanup:
        gateway, clients = _network(cleanup)
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        sections = [peer_section(client, endpoint=None) for client in clients]
        daemon: Interface
        if name == WGPY:
            daemon = StartedWgpy(gateway, directory, *sections, options=("--workers", "2"))
        else:
            daemon = CurrentWireguardGo(gateway, *sections)
        cleanup.callback(daemon.close)
        for client in clients:
            cleanup.callback(CurrentWireguardGo(client, peer_section(gateway)).close)
        for measure_, options in OPTIONS.items():
            rate = _transfer(gateway, clients, ("-t", f"{plan.seconds:.0f}", *options))
            plan.add(measure_, name, number, rate, " ".join(("iperf3", "-c", gateway.inner4, *options)))


def _network(cleanup: ExitStack) -> tuple[Side, list[Side]]:
    """The gateway, and clients that have a cable to it each."""
    here = cleanup.enter_context(Namespace())
    here.run("ip", "address", "add", f"{OUTER}/32", "dev", "lo")
    clients = []
    for number in range(1, CLIENTS + 1):
        there, network = cleanup.enter_context(Namespace()), f"10.3.{number}"
        veth_pair(here, there, ([f"{network}.1/24"], [f"{network}.2/24"]), name=f"cable{number}")
        there.run("ip", "route", "add", "default", "via", f"{network}.1")
        clients.append(Side(there, f"{network}.2", f"10.8.0.{number + 1}", f"fd08::{number + 1}"))
    return Side(here, OUTER, "10.8.0.1", "fd08::1"), clients


def _transfer(gateway: Side, clients: list[Side], options: tuple[str, ...]) -> float:
    """Mbit/s received by all together."""
    with ExitStack() as cleanup:
        commands = []
        for port, client in enumerate(clients, FIRST_PORT):
            serve = ("iperf3", "-s", "-1", "-p", str(port))
            server = cleanup.enter_context(gateway.namespace.popen(*serve, stdout=subprocess.DEVNULL))
            cleanup.callback(server.kill)
            commands.append((client, ("iperf3", "-c", gateway.inner4, "-p", str(port), "--json", *options)))
        assert wait_for(lambda: gateway.namespace.run("ss", "-Hltn").count(":52") == len(clients))
        running = [client.namespace.popen(*command, stdout=subprocess.PIPE) for client, command in commands]
        reports = [json.loads(each.communicate(timeout=60)[0]) for each in running]
    return sum(float(report["end"]["sum_received"]["bits_per_second"]) for report in reports) / 1e6
