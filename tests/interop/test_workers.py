"""A gateway with two workers and four clients in namespaces of their own: traffic, moves and floods, as with one."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.netns import Namespace, require_root, veth_pair
from tests.support.peers import Side, Wgpy, iperf3, peer_section, wait_for
from wgpy.daemon import uapi_client
from wgpy.device.status import DeviceStatus

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("clients")]

CLIENTS = 4
OUTER = "10.3.0.1"  # the gateway's
STRANGERS = "10.2.0.0/16"


class Gateway:
    """The gateway, its clients, and a namespace with a network of strangers."""

    def __init__(self, cleanup: ExitStack) -> None:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        here = cleanup.enter_context(Namespace())
        here.run("ip", "address", "add", f"{OUTER}/32", "dev", "lo")
        self.side = Side(here, OUTER, "10.8.0.1", "fd08::1")
        self.clients: list[Side] = []
        for number in range(CLIENTS):
            namespace = self._neighbour(cleanup, number)
            inner = f"10.8.0.{number + 2}", f"fd08::{number + 2}"
            self.clients.append(Side(namespace, f"10.3.{number + 1}.2", *inner))
        self.strangers = self._neighbour(cleanup, CLIENTS)
        self.strangers.run("ip", "route", "add", "local", STRANGERS, "dev", "lo")
        here.run("ip", "route", "add", STRANGERS, "via", f"10.3.{CLIENTS + 1}.2")
        sections = (peer_section(client, endpoint=None) for client in self.clients)
        self.daemon = Wgpy(self.side, directory, *sections, options=("--workers", "2"))
        cleanup.callback(self.daemon.close)
        self.daemons = []
        for client in self.clients:
            self.daemons.append(Wgpy(client, directory, peer_section(self.side)))
            cleanup.callback(self.daemons[-1].close)

    def _neighbour(self, cleanup: ExitStack, number: int) -> Namespace:
        """A namespace with a cable of its own to the gateway's."""
        namespace, network = cleanup.enter_context(Namespace()), f"10.3.{number + 1}"
        ends = [f"{network}.1/24"], [f"{network}.2/24"]
        veth_pair(self.side.namespace, namespace, ends, name=f"cable{number}")
        namespace.run("ip", "route", "add", "default", "via", f"{network}.1")
        return namespace

    def status(self) -> DeviceStatus:
        return uapi_client.read(self.side.name)

    def pings(self, count: int = 20) -> list[int]:
        """How many of so many pings of each client, all at once, were answered."""
        command = ("ping", "-q", "-c", str(count), "-i", "0.05", "-W", "5", self.side.inner4)
        processes = [client.namespace.popen(*command, stdout=subprocess.PIPE) for client in self.clients]
        said = [process.communicate(timeout=60)[0] for process in processes]
        return [int(each.partition(" received")[0].split()[-1]) for each in said]

    @contextmanager
    def flood(self, kind: str) -> Iterator[None]:
        before = sum(self.status().drops.values())
        victim = f"{self.side.public_key.base64()}@{OUTER}:{self.side.port}"
        command = ("nice", "-n19", sys.executable, "-m", "tests.support.flood", kind, victim, STRANGERS)
        process = self.strangers.popen(*command, "--rate=9000", stdout=subprocess.PIPE)
        try:
            assert wait_for(lambda: sum(self.status().drops.values()) > before + 1000)
            yield
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    require_root()
    with ExitStack() as cleanup:
        made = Gateway(cleanup)
        assert min(made.pings(5)) > 0, "a client does not connect"  # each test may be the first of its process
        yield made


def test_traffic_of_all_clients_in_both_directions(gateway: Gateway) -> None:
    assert gateway.pings() == [20] * CLIENTS
    for client in gateway.clients:
        for options in ((), ("-R",)):
            end = iperf3(client.namespace, gateway.side.namespace, gateway.side.inner4, "-t", "1", *options)
            assert end["sum_received"]["bytes"] > 1_000_000
    status = gateway.status()
    assert [worker.peers for worker in status.workers] == [2, 2]
    assert status.drops == {}
    assert [peer.drops for peer in status.peers] == [{}] * CLIENTS
    packets = sum(peer.tx_bytes + peer.rx_bytes for peer in status.peers) / 1452
    assert status.handed_over < packets / 4, "the kernel has most answers wait in the right queue"


def test_flows_that_nobody_answers_arrive_whole_and_in_order(gateway: Gateway) -> None:
    """Half of them are read by the wrong worker."""
    before = gateway.status().handed_over
    with ExitStack() as cleanup:
        sender = cleanup.enter_context(gateway.side.namespace.udp_socket())
        receivers = []
        for client in gateway.clients:
            for _ in range(4):
                receiver = cleanup.enter_context(client.namespace.udp_socket())
                receiver.bind((client.inner4, 0))
                receivers.append(receiver)
        for number in range(200):
            for receiver in receivers:
                sender.sendto(number.to_bytes(2, "big") + bytes(number), receiver.getsockname())
            time.sleep(0.002)
        for receiver in receivers:
            assert _received(receiver, 200) == list(range(200))
    assert 200 <= gateway.status().handed_over - before <= 200 * (len(receivers) - 1)
    assert gateway.status().drops == {}


def _received(sock: socket.socket, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count and select.select([sock], [], [], 10)[0]:
        found.append(int.from_bytes(sock.recv(2048)[:2], "big"))
    return found


def test_the_gateway_follows_clients_that_move(gateway: Gateway) -> None:
    for number, client in enumerate(gateway.clients):
        device, network = f"cable{number}", f"10.3.{number + 1}"
        client.namespace.run("ip", "address", "add", f"{network}.3/24", "dev", device)
        client.namespace.run("ip", "address", "delete", f"{network}.2/24", "dev", device)
        client.namespace.run("ip", "address", "replace", f"{network}.3/24", "dev", device)
        client.namespace.run("ip", "route", "replace", "default", "via", f"{network}.1")
    assert gateway.pings(5) == [5] * CLIENTS
    endpoints = [peer.endpoint and peer.endpoint.host for peer in gateway.status().peers]
    assert endpoints == [f"10.3.{number + 1}.3" for number in range(CLIENTS)]


@pytest.mark.parametrize("kind", ["initiations", "cookies", "data", "noise"])
def test_clients_do_not_wait_behind_a_flood(gateway: Gateway, kind: str) -> None:
    with gateway.flood(kind):
        assert min(gateway.pings()) >= 18
    assert [peer.drops for peer in gateway.status().peers] == [{}] * CLIENTS


def test_newcomers_connect_during_a_flood(gateway: Gateway) -> None:
    """By cookies: the worker that gave one gets the initiation that shows it, and hands it over if need be."""
    with gateway.flood("initiations"):
        for number, client in enumerate(gateway.clients):
            gateway.daemons[number].close()
            gateway.daemons[number] = Wgpy(client, gateway.daemons[number].path.parent, peer_section(gateway.side))
            client.namespace.run("ping", "-c", "1", "-w", "30", gateway.side.inner4, timeout=40)
