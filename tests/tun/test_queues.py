"""A TUN with a queue for each worker: which packets wait in which queue is the kernel's choice (its tun.c)."""

from __future__ import annotations

import os
import socket
import subprocess
from collections import Counter

import pytest

from tests.support import reference
from tests.support.bursts import burst_of, tcp_run
from tests.support.descriptors import descriptors
from tests.support.netns import in_fresh_namespace
from tests.tun.test_linux import all_packets, ip
from wgpy.errors import TunError
from wgpy.tun.linux import LinuxTun
from wgpy.tun.virtio import MERGEABLE

pytestmark = pytest.mark.root

HERE = {4: "10.9.0.1", 6: "fd09::1"}
CLIENT = {4: "10.9.0.2", 6: "fd09::2"}


def opened(count: int) -> list[LinuxTun]:
    """The queues of a new interface that is up, with an address of each family."""
    queues = [LinuxTun.adopt(fd) for fd in LinuxTun.open_queues("wg7", count)]
    ip("address", "add", f"{HERE[4]}/24", "dev", "wg7")
    ip("address", "add", f"{HERE[6]}/64", "dev", "wg7", "nodad")
    ip("link", "set", "wg7", "mtu", "1420", "up")
    for queue in queues:
        all_packets(queue)
    return queues


def exists(name: str) -> bool:
    return name in (existing for _, existing in socket.if_nameindex())


def ports_to_clients(tun: LinuxTun) -> list[int]:
    """The clients' ports, of the UDP packets that wait."""
    found = []
    for packet in all_packets(tun):
        start = 20 if packet[0] >> 4 == 4 else 40
        if packet[9 if start == 20 else 6] == 17:
            found.append(int.from_bytes(packet[start + 2 : start + 4], "big"))
    return found


@in_fresh_namespace
def test_each_queue_has_the_offloads_and_the_interface_goes_with_the_last() -> None:
    queues = [LinuxTun.adopt(fd) for fd in LinuxTun.open_queues("wg%d", 3)]
    assert {queue.name for queue in queues} == {"wg0"}
    assert all(queue.super_packets == MERGEABLE for queue in queues)
    ip("link", "set", "wg0", "up")
    for queue in queues:
        assert queue.link() == (True, 1420)
        queue.write(burst_of(*tcp_run(4)))
        assert not queue.drops
        assert exists("wg0")
        queue.close()
    assert not exists("wg0")


@in_fresh_namespace
def test_queues_without_offloads_take_packets_one_by_one() -> None:
    queues = [LinuxTun.adopt(fd, offload=False) for fd in LinuxTun.open_queues("wg0", 2, offload=False)]
    assert [queue.super_packets for queue in queues] == [frozenset()] * 2


@pytest.mark.parametrize("version", [4, 6])
@in_fresh_namespace
def test_an_answer_waits_in_the_queue_that_wrote_what_it_answers(version: int) -> None:
    """So the worker that serves a client reads what goes to it, of every flow that is answered."""
    queues = opened(4)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((HERE[version], 1000))
        for moved in range(2):  # and once more after all clients have moved to another worker
            for port in range(2000, 2200):
                ends = CLIENT[version], HERE[version]
                request = reference.udp_packet(*ends, b"ask", ports=(port, 1000))
                queues[(port + moved) % 4].write(burst_of(request))
                server.sendto(*server.recvfrom(99))
            for number, queue in enumerate(queues):
                assert ports_to_clients(queue) == [port for port in range(2000, 2200) if (port + moved) % 4 == number]


@in_fresh_namespace
def test_new_flows_are_spread_and_each_keeps_to_its_queue() -> None:
    queues = opened(4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((HERE[4], 1000))
        for port in [*range(2000, 2100)] * 2:
            sender.sendto(b"one way", (CLIENT[4], port))
    found = [Counter(ports_to_clients(queue)) for queue in queues]
    assert sum(map(len, found)) == 100
    assert {count for ports in found for count in ports.values()} == {2}
    assert max(map(len, found)) < 60


@in_fresh_namespace
def test_a_descriptor_may_be_adopted_again_after_its_worker_has_gone() -> None:
    """What waits in the queue waits for the next one."""
    queues = opened(2)
    kept = [os.dup(queue.fileno()) for queue in queues]
    queues[1].close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(2000, 2100):
            sender.sendto(b"hello", (CLIENT[4], port))
    queues[1] = LinuxTun.adopt(kept[1])
    assert sorted(port for queue in queues for port in ports_to_clients(queue)) == [*range(2000, 2100)]


@in_fresh_namespace
def test_a_queue_that_is_closed_leaves_its_flows_to_the_others() -> None:
    queues = opened(2)
    queues[1].close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(2000, 2100):
            sender.sendto(b"hello", (CLIENT[4], port))
    assert ports_to_clients(queues[0]) == [*range(2000, 2100)]


@in_fresh_namespace
def test_an_interface_that_exists_needs_multi_queue() -> None:
    ip("tuntap", "add", "wg0", "mode", "tun")
    with pytest.raises(TunError, match=r"wg0 exists with a single queue, .* multi_queue"):
        LinuxTun.open_queues("wg0", 2)
    ip("tuntap", "add", "wg1", "mode", "tun", "multi_queue")
    queues = LinuxTun.open_queues("wg1", 2)
    said = subprocess.run(["ip", "-d", "link", "show", "wg1"], capture_output=True, text=True, check=True).stdout
    assert "numqueues 2 " in said
    with pytest.raises(TunError, match="wg1"):
        LinuxTun.open("wg1")
    assert len(queues) == 2


@in_fresh_namespace
def test_a_failure_closes_the_queues_opened_before_it() -> None:
    before = descriptors()
    with pytest.raises(TunError):
        LinuxTun.open_queues("wg0", 300)  # the kernel has 256
    assert descriptors() == before
    assert not exists("wg0")
    with pytest.raises(TunError, match="1 to 15 bytes"):
        LinuxTun.open_queues("a/b", 2)
