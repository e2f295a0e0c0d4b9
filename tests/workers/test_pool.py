"""A gateway with two workers and two peers, each on its own: what happens to one worker, and to control.

Whatever wgpy does with one process, tests elsewhere in the tree repeat with two (`WGPY_WORKERS`). Here is what only
several processes have.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import WGPY, Side, Wgpy, fresh_name, peer_section, wait_for
from wgpy.daemon import uapi_client
from wgpy.daemon.uapi_client import serving_pid
from wgpy.device.status import DeviceStatus
from wgpy.keys import PrivateKey
from wgpy.system.priority import NICE

pytestmark = pytest.mark.root


class Gateway:
    """The left end, a gateway with two workers; one client is on the right, another on a cable of its own."""

    def __init__(self, cable: Cable, *, workers: str = "2", extra: str = "") -> None:
        self.side, self.run = cable.left, cable.left.namespace.run
        self.cable = cable
        aside = cable.cleanup.enter_context(Namespace())
        veth_pair(cable.left.namespace, aside, (("198.51.100.1/24",), ("198.51.100.2/24",)), name="veth1")
        second = Side(aside, "198.51.100.2", f"{cable.right.inner4[:-1]}3", f"{cable.right.inner6[:-1]}3")
        self.clients = [cable.right, second]
        lines = f"# Workers = {workers}\n{extra}"
        peers = [peer_section(client, endpoint=None) for client in self.clients]
        self.served = Wgpy(cable.left, cable.directory, *peers, extra=lines)
        cable.cleanup.callback(self.run, forked_wgpy(), "down", self.name, check=False)
        endpoints = [self.side.endpoint, f"198.51.100.1:{self.side.port}"]
        self.open = [
            Wgpy(client, cable.directory, peer_section(cable.left, endpoint=endpoint))
            for client, endpoint in zip(self.clients, endpoints, strict=True)
        ]
        for client in self.open:
            cable.cleanup.callback(client.close)

    @property
    def name(self) -> str:
        return self.side.name

    @property
    def log(self) -> str:
        return Path(f"/run/wgpy/{self.name}.log").read_text()

    def status(self) -> DeviceStatus:
        return uapi_client.read(self.name)

    def worker(self, number: int) -> int:
        """The process id of a worker."""
        return self.status().workers[number].pid

    def reached(self, client: int, *options: str) -> bool:
        """Whether the gateway answers a client's ping, sent by its interface."""
        there = self.clients[client]
        command = ("ping", "-c", "1", "-W", "5", *options, self.side.inner4)
        return " 0% packet loss" in there.namespace.run(*command, check=False)

    def reaches(self, client: int, *options: str) -> bool:
        """Whether a client answers the gateway's ping."""
        command = ("ping", "-c", "1", "-W", "5", *options, self.clients[client].inner4)
        return " 0% packet loss" in self.run(*command, check=False)


@pytest.fixture
def gateway(cable: Cable) -> Gateway:
    made = Gateway(cable)
    assert made.reached(0)
    assert made.reached(1)
    return made


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_each_peer_has_a_worker_and_there_is_one_status(gateway: Gateway) -> None:
    status = gateway.status()
    assert [worker.peers for worker in status.workers] == [1, 1]
    assert [peer.public_key for peer in status.peers] == [client.public_key for client in gateway.clients]
    assert all(peer.last_handshake_ns and peer.endpoint and peer.rx_bytes for peer in status.peers)
    assert "  workers: 2\n" in gateway.run(forked_wgpy(), "show", gateway.name)
    assert gateway.run("wg", "show", gateway.name, "latest-handshakes").count("\n") == 2
    assert [worker["peers"] for worker in gateway.served.status()["workers"]] == [1, 1]
    assert len({worker.pid for worker in status.workers} | {serving_pid(gateway.name)}) == 3
    assert [os.getpriority(os.PRIO_PROCESS, worker.pid) for worker in status.workers] == [NICE] * 2
    assert os.getpriority(os.PRIO_PROCESS, serving_pid(gateway.name)) == 0  # which hooks inherit
    assert gateway.log == ""


def test_packets_that_reach_the_wrong_worker_are_handed_over_in_order_and_counted(gateway: Gateway) -> None:
    """Of flows that the gateway begins, the kernel chooses the queue by their hash."""
    for client in gateway.clients:
        for _ in range(8):  # without -w, ping waits for late answers as long as two answers took, which may be nothing
            gateway.run("ping", "-i", "0.01", "-c", "5", "-w", "20", client.inner4)
    status = gateway.status()
    assert not any(peer.drops for peer in status.peers)
    assert status.handed_over == sum(worker.handed_over for worker in status.workers)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_dies_is_replaced_and_its_peer_gets_a_handshake(gateway: Gateway, how: signal.Signals) -> None:
    before, other = gateway.worker(0), gateway.worker(1)
    since = gateway.status().peers[0].last_handshake_ns
    os.kill(before, how)
    # The client sends nothing meanwhile, so that only the gateway begins a handshake.
    assert wait_for(lambda: gateway.status().peers[0].last_handshake_ns > since)
    status = gateway.status()
    assert [worker.replaced for worker in status.workers] == [1, 0]
    assert status.workers[0].pid not in (before, 0)
    assert status.workers[1].pid == other
    assert gateway.reached(0)
    assert gateway.reached(1)
    said = f"({gateway.name}) worker 0 (process {before}) was killed by {how.name}; another is started\n"
    assert gateway.log == said


def test_a_worker_that_dies_again_and_again_is_replaced_with_a_growing_delay(gateway: Gateway) -> None:
    for number in range(3):
        assert wait_for(lambda: gateway.worker(0) != 0)
        os.kill(gateway.worker(0), signal.SIGKILL)
        assert wait_for(lambda: gateway.status().workers[0].replaced == number + 1)  # noqa: B023 (called at once)
    lines = gateway.log.splitlines()
    assert [line.rpartition("another is started")[2] for line in lines] == ["", " in 0.5 seconds", " in 1 seconds"]
    assert wait_for(lambda: gateway.worker(0) != 0)
    assert wait_for(lambda: gateway.reached(0))


def test_while_a_worker_waits_for_its_restart_the_other_takes_new_flows_and_handshakes(gateway: Gateway) -> None:
    """What the kernel gave to the one that is gone would wait for as long as 30 seconds; here, for 4."""
    for number in range(5):
        assert wait_for(lambda: gateway.worker(0) != 0)
        os.kill(gateway.worker(0), signal.SIGKILL)
        assert wait_for(lambda: gateway.status().workers[0].replaced == number + 1)  # noqa: B023 (called at once)
    client, answered = gateway.clients[1], []
    for number in range(8):
        if gateway.worker(0) == 0:  # this machine may be slow
            answered.append(gateway.reaches(1, "-W", "2"))  # a flow of its own
            client.namespace.run("wg", "set", client.name, "listen-port", str(client.port + number))  # a newcomer
            client.namespace.run("ip", "link", "set", client.name, "down")
            client.namespace.run("ip", "link", "set", client.name, "up")
            client.namespace.run("ip", "route", "replace", gateway.side.inner4, "dev", client.name)
            answered.append(gateway.reached(1, "-W", "2"))
    assert answered.count(False) <= 1, "half of them would not be"  # a busy machine may lose one
    assert wait_for(lambda: gateway.reached(0))
    assert wait_for(lambda: gateway.reaches(0))


def test_a_stopped_worker_does_not_hold_up_a_change_for_long(gateway: Gateway) -> None:
    pid = gateway.worker(0)
    os.kill(pid, signal.SIGSTOP)
    gateway.run("wg", "set", gateway.name, "peer", gateway.clients[1].public_key.base64(), "persistent-keepalive", "25")
    assert gateway.log == f"({gateway.name}) worker 0 (process {pid}) did not answer for 10 s; another is started\n"
    assert wait_for(lambda: gateway.reached(0))


def test_a_worker_is_replaced_later_if_descriptors_are_lacking(gateway: Gateway) -> None:
    control, worker = serving_pid(gateway.name), gateway.worker(0)
    before = resource.prlimit(control, resource.RLIMIT_NOFILE)
    resource.prlimit(control, resource.RLIMIT_NOFILE, (3, before[1]))  # no further one
    os.kill(worker, signal.SIGKILL)
    assert wait_for(lambda: "worker 0: a worker cannot be started: Too many open files" in gateway.log)
    resource.prlimit(control, resource.RLIMIT_NOFILE, before)
    assert wait_for(lambda: gateway.reached(0), 30)
    assert "Traceback" not in gateway.log


def test_a_change_while_a_worker_is_replaced_is_applied_completely(gateway: Gateway) -> None:
    os.kill(gateway.worker(1), signal.SIGKILL)
    key = gateway.clients[1].public_key.base64()
    gateway.run(
        "wg",
        "set",
        gateway.name,
        "peer",
        key,
        "persistent-keepalive",
        "25",
        "allowed-ips",
        f"{gateway.clients[1].inner4}/32",
    )
    assert wait_for(lambda: gateway.reached(1))
    peer = gateway.status().peers[1]
    assert (peer.persistent_keepalive, [str(network) for network in peer.allowed_ips]) == (
        25,
        [f"{gateway.clients[1].inner4}/32"],
    )


def test_when_control_is_killed_in_the_middle_of_a_change_everything_ends_and_up_works_again(gateway: Gateway) -> None:
    workers = [gateway.worker(number) for number in (0, 1)]
    control = serving_pid(gateway.name)
    os.kill(workers[0], signal.SIGSTOP)
    with gateway.side.namespace.popen("wg", "set", gateway.name, "listen-port", "40404", stderr=-1) as change:
        assert wait_for(lambda: gateway.run("ss", "-Hlun", "sport", "= :40404") != "")
        assert gateway.run("ss", "-Hlun", "sport", f"= :{gateway.side.port}") != "", "it is half made"
        os.kill(control, signal.SIGKILL)
        change.communicate(timeout=30)
    assert wait_for(lambda: all(map(is_gone, workers)))
    assert wait_for(lambda: gateway.name not in gateway.run("ip", "-o", "link"))
    gateway.run(forked_wgpy(), "up", str(gateway.served.path))
    assert wait_for(lambda: gateway.reached(0))
    assert wait_for(lambda: gateway.reached(1))


def test_the_interface_moves_into_another_namespace_while_clients_send(gateway: Gateway) -> None:
    """Its sockets stay where they were, and all workers follow it."""
    pids = [worker.pid for worker in gateway.status().workers]
    run = gateway.run
    with Namespace() as inside, ExitStack() as stack:
        for client in gateway.clients:
            sending = client.namespace.popen("ping", "-q", "-i", "0.01", gateway.side.inner4, stdout=subprocess.DEVNULL)
            stack.callback(sending.communicate)
            stack.callback(sending.kill)
        for here, there in ((run, inside), (inside.run, gateway.side.namespace)):
            here("ip", "link", "set", gateway.name, "netns", there.name)
            there.run("ip", "address", "add", f"{gateway.side.inner4}/24", "dev", gateway.name)
            there.run("ip", "link", "set", gateway.name, "up")
            for (
                client
            ) in gateway.clients:  # the gateway begins a handshake, because clients do not know yet that they must
                ping = ("ping", "-c", "1", "-W", "1", client.inner4)
                assert wait_for(lambda: " 0% packet loss" in there.run(*ping, check=False))  # noqa: B023 (at once)
    assert [worker.pid for worker in gateway.status().workers] == pids
    assert gateway.log == ""


def test_a_stopped_worker_blocks_neither_the_others_nor_wg(
    gateway: Gateway,
) -> None:
    since = gateway.status().peers[0].last_handshake_ns
    pid = gateway.worker(0)
    os.kill(pid, signal.SIGSTOP)
    assert gateway.run("wg", "show", gateway.name, "latest-handshakes").count("\n") == 2
    assert gateway.reached(1)
    os.kill(pid, signal.SIGCONT)
    assert gateway.reached(0)
    assert gateway.worker(0) == pid
    assert gateway.status().peers[0].last_handshake_ns == since  # the session is as it was


def test_a_worker_that_hangs_is_replaced_where_a_service_manager_watches(cable: Cable) -> None:
    environment = {"NOTIFY_SOCKET": "@nobody-listens", "WATCHDOG_USEC": "6000000", "WGPY_WORKERS": "2"}
    assigned = [f"{name}={value}" for name, value in environment.items()]
    name = cable.left.name
    with cable.left.namespace.popen("env", *assigned, *WGPY, "-f", name, stderr=-1) as process:
        assert wait_for(lambda: uapi_client.is_served(name))
        cable.left.namespace.run("ip", "link", "set", name, "up")
        assert wait_for(lambda: uapi_client.read(name).listen_port != 0)  # all workers have been started
        os.kill(uapi_client.read(name).workers[1].pid, signal.SIGSTOP)
        assert wait_for(lambda: uapi_client.read(name).workers[1].replaced == 1, 60)
        process.terminate()
        assert "hung; another is started" in process.communicate(timeout=30)[1]


def test_a_prefix_moves_between_workers_without_a_packet_going_to_both(gateway: Gateway) -> None:
    """Each of 400 packets is answered by one of the two clients, which both have the address."""
    shared = "10.78.0.1"
    for client in gateway.clients:
        client.namespace.run("ip", "address", "add", f"{shared}/32", "dev", client.name)
    gateway.run("ip", "route", "add", f"{shared}/32", "dev", gateway.name)
    keys = [client.public_key.base64() for client in gateway.clients]

    def give(client: int) -> None:
        own = f"{gateway.clients[client].inner4}/32,{shared}/32"
        gateway.run("wg", "set", gateway.name, "peer", keys[client], "allowed-ips", own)

    def received() -> list[int]:
        return [
            int(gateway.open[number].side.namespace.run("wg", "show", client.name, "transfer").split()[1])
            for number, client in enumerate(gateway.clients)
        ]

    before = received()
    size, count = 512, 400
    with ExitStack() as stack:
        flood = stack.enter_context(
            gateway.side.namespace.popen("ping", "-q", "-i", "0.002", "-c", str(count), "-s", str(size), shared)
        )
        for turn in range(10):
            give(turn % 2)
            time.sleep(0.05)
        flood.wait(30)
    got = sum(received()) - sum(before)
    packet = size + 28
    assert got < 1.1 * count * (packet + 15 // 16 * 16 + 32)
    assert got > 0.9 * count * packet
    assert all(received()[number] > before[number] + 20 * packet for number in (0, 1))


def test_apply_says_that_another_number_of_workers_needs_a_restart(gateway: Gateway) -> None:
    path = gateway.served.path
    path.write_text(
        path.read_text().replace("# Workers = 2", "# Workers = 3").replace("ListenPort", "MTU = 1400\nListenPort")
    )
    said = gateway.run(forked_wgpy(), "apply", str(path))
    assert "[#] # Workers takes effect when the interface is brought up again\n" in said
    assert f"ip link set mtu 1400 dev {gateway.name}" in said
    assert len(gateway.status().workers) == 2


def test_deleting_the_interface_ends_all_processes(gateway: Gateway) -> None:
    pids = [serving_pid(gateway.name), gateway.worker(0), gateway.worker(1)]
    gateway.run("ip", "link", "delete", gateway.name)
    assert wait_for(lambda: all(map(is_gone, pids)))
    assert "the interface went away" in gateway.log
    assert "another is started" not in gateway.log


def test_down_ends_all_processes_and_removes_the_interface_before_it_returns(gateway: Gateway) -> None:
    pids = [serving_pid(gateway.name), gateway.worker(0), gateway.worker(1)]
    gateway.run(forked_wgpy(), "down", gateway.name)
    assert gateway.name not in gateway.run("ip", "-o", "link")
    assert all(map(is_gone, pids))


def test_the_link_goes_down_and_up_and_the_port_changes_under_all_workers(gateway: Gateway) -> None:
    gateway.run("ip", "link", "set", gateway.name, "down")
    assert wait_for(lambda: gateway.run("ss", "-Hlun", "sport", f"= :{gateway.side.port}") == "")
    gateway.run("ip", "link", "set", gateway.name, "up")
    assert wait_for(lambda: gateway.run("ss", "-Hlun", "sport", f"= :{gateway.side.port}") != "")
    assert all(gateway.reaches(client) for client in (0, 1))
    gateway.run("wg", "set", gateway.name, "listen-port", "40404")
    assert all(gateway.reaches(client) for client in (0, 1))
    assert {peer.endpoint.port for peer in uapi_client.read(gateway.clients[0].name).peers if peer.endpoint} == {40404}
    assert gateway.run("ss", "-Hlun", "sport", f"= :{gateway.side.port}") == ""
    taken = gateway.side.namespace.popen("python3", "-c", _HOLDS_A_PORT)
    assert wait_for(lambda: gateway.run("ss", "-Hlun", "sport", "= :40405") != "")
    said = gateway.run("wg", "set", gateway.name, "listen-port", "40405", "fwmark", "7", check=False)
    assert "Address already in use" in said
    assert (gateway.status().listen_port, gateway.status().fwmark) == (40404, 0)
    assert all(gateway.reaches(client) for client in (0, 1))
    taken.terminate()
    taken.wait(10)


_HOLDS_A_PORT = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 40405)); time.sleep(60)"


@pytest.mark.parametrize("kind", ["option", "environment", "neither"])
def test_the_option_and_the_environment_override_the_file(
    cable: Cable, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = [f"[Peer]\nPublicKey = {PrivateKey.generate().public_key.base64()}" for _ in range(4)]
    options = ("--workers", "3") if kind == "option" else ()
    if kind != "neither":
        monkeypatch.setenv("WGPY_WORKERS", "4" if kind == "option" else "3")
    served = Wgpy(cable.left, cable.directory, *peers, extra="# Workers = 2", options=options)
    cable.cleanup.callback(served.close)
    assert len(uapi_client.read(cable.left.name).workers) == (2 if kind == "neither" else 3)


@pytest.mark.parametrize("value", ["0", "65", "many", "-1", "2.5"])
def test_a_wrong_number_is_reported_with_its_source(cable: Cable, value: str) -> None:
    path = cable.directory / "wrong.conf"
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\n# Workers = {value}\n")
    expected = f"expected auto or a number of processes, 1 to 64, not '{value}'"
    run = cable.left.namespace.run
    assert f"wrong.conf:2: # Workers: {expected}" in run(forked_wgpy(), "up", str(path), check=False)
    assert f"--workers: {expected}" in run(forked_wgpy(), "serve", f"--workers={value}", fresh_name(), check=False)
    said = run("env", f"WGPY_WORKERS={value}", *WGPY, fresh_name(), check=False)
    assert f"WGPY_WORKERS: {expected}" in said
