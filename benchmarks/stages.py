"""The stages of the data path, without a kernel: split, route and seal, open and check, merge.

Each handles a burst of 44 full segments, as one read from the TUN brings them, or as many in super-packets of two, as
the kernel paces many streams, or a lone packet of the same length, which shows what bursts save. `test_stages.py` times
them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from benchmarks.goals import WGPY
from benchmarks.plan import Plan
from tests.support.bursts import OPTIONS, burst_of
from tests.support.reference import tcp_packet
from wgpy.burst import Burst, Datagrams, ViewCache
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey
from wgpy.tun.checksum import checksum, pseudo_header_sum
from wgpy.tun.gathering import Groups
from wgpy.tun.merging import merge
from wgpy.tun.splitting import SLOTS_SIZE, split
from wgpy.tun.virtio import GSO_TCPV4, VnetHeader

SEGMENTS: Final = 44
MSS: Final = 1368
MTU: Final = 1420
HERE, THERE = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 1)
NAMES: Final = (
    "split a super-packet",
    "gather small super-packets",
    "seal (the AEAD in place)",
    "send: route, seal, count",
    "receive: open, check, count",
    "merge into a super-packet",
    "merge into three, as timestamps differ",
    "merge 11 flows, mixed",
    "send, a lone packet",
    "receive, a lone packet",
)
COMMAND: Final = ("pytest", "benchmarks/test_stages.py", "-p", "no:cacheprovider", "-q")


def measure(plan: Plan) -> None:
    """Microseconds per packet of each stage: the median of pytest-benchmark's rounds."""
    with tempfile.TemporaryDirectory(prefix="wgpy-bench-") as directory:
        report = Path(directory) / "report.json"
        for number in range(plan.rounds):
            command = (sys.executable, "-m", *COMMAND, f"--benchmark-json={report}")
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            for result in json.loads(report.read_text())["benchmarks"]:
                packets = 1 if "lone" in result["params"]["name"] else SEGMENTS
                cost = result["stats"]["median"] / packets * 1e6
                plan.add(f"stage: {result['params']['name']}", WGPY, number, cost, " ".join(COMMAND))


class Stages:
    """Two devices with a session, and each stage's input and action."""

    def __init__(self) -> None:
        self.sender, self.receiver = _connected_pair()
        self._super_packet = memoryview(bytearray(_packet(b"p" * MSS * SEGMENTS)))
        self._header = VnetHeader(flags=1, gso_type=GSO_TCPV4, hdr_len=52, gso_size=MSS, csum_start=20, csum_offset=16)
        self._lone = _packet(b"p" * MSS)
        self._slots = ViewCache(memoryview(bytearray(SLOTS_SIZE)))
        self._groups = Groups(SLOTS_SIZE)
        self._small = [memoryview(_packet(b"p" * MSS * 2, 2 + i % 8)) for i in range(SEGMENTS // 2)]
        mixed, three = _mixed(), _three()
        keypair = next(iter(self.sender._peers.values())).keypairs.current
        assert keypair is not None
        stages: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
            (lambda: None, lambda _: self.split_burst()),
            (lambda: None, lambda _: self.gathered()),
            (self.split_burst, keypair.seal),
            (self.split_burst, lambda burst: self.sender.send(burst, 1.0)),
            (self.sealed, lambda datagrams: self.receiver.receive(datagrams, HERE, 1.0)),
            (lambda: self.opened(self.sealed()), merge),
            (lambda: three, merge),
            (lambda: mixed, merge),
            (self.lone, lambda burst: self.sender.send(burst, 1.0)),
            (self.lone_sealed, lambda datagrams: self.receiver.receive(datagrams, HERE, 1.0)),
        )
        self.by_name = dict(zip(NAMES, stages, strict=True))

    def split_burst(self) -> Burst:
        burst = split(self._header, self._super_packet, self._slots, (MTU,))
        assert burst is not None
        return burst

    def gathered(self) -> list[Burst]:
        self._groups.begin(self._header, self._small[0], (MTU,))
        for packet in self._small[1:]:
            self._groups.take(self._header, packet, (MTU,))
        return self._groups.bursts((MTU,))

    def lone(self) -> Burst:
        return Burst.of(self._lone, MTU)

    def lone_sealed(self) -> Datagrams:
        return self.sender.send(self.lone(), 1.0).transmits[0].datagrams

    def sealed(self) -> Datagrams:
        (transmit,) = self.sender.send(self.split_burst(), 1.0).transmits
        transmit.datagrams.cache = self._slots
        return transmit.datagrams

    def opened(self, datagrams: Datagrams) -> Burst:
        (burst,) = self.receiver.receive(datagrams, HERE, 1.0).deliveries
        return burst


def _connected_pair() -> tuple[Device, Device]:
    keys = PrivateKey.generate(), PrivateKey.generate()
    devices = []
    for key, other, endpoint, allowed in ((keys[0], keys[1], THERE, "10.0.0.2"), (keys[1], keys[0], HERE, "10.0.0.1")):
        device = Device(random=os.urandom, wall_clock=time.time_ns)
        peer = PeerChange(
            public_key=other.public_key, endpoint=endpoint, allowed_ips=(AllowedIPChange(ip_network(allowed)),)
        )
        device.configure(DeviceChange(private_key=key, peers=(peer,)), 0.0)
        device.start(0.0)
        devices.append(device)
    sender, receiver = devices
    (initiation,) = sender.send(_packet(b""), 0.0).transmits
    (response,) = receiver.receive(initiation.datagrams, HERE, 0.0).transmits
    for transmit in sender.receive(response.datagrams, THERE, 0.0).transmits:
        receiver.receive(transmit.datagrams, HERE, 0.0)
    return sender, receiver


def _mixed() -> Burst:
    """As many packets, of 11 flows that come in turns of two packets."""
    flows = [
        [
            tcp_packet("10.0.0.1", "10.0.0.2", b"p" * MSS, sequence=i * MSS, ports=(5201, port), tcp_options=OPTIONS)
            for i in range(4)
        ]
        for port in range(40000, 40011)
    ]
    packets = [packet for turn in (0, 2) for flow in flows for packet in flow[turn : turn + 2]]
    burst = burst_of(*packets)
    burst.cache = ViewCache(burst.view)
    return burst


def _three() -> Burst:
    """As many packets, of one flow's three super-packets: a busy socket brings several at once."""
    packets = [
        tcp_packet(
            "10.0.0.1",
            "10.0.0.2",
            b"p" * MSS,
            sequence=i * MSS,
            tcp_options=OPTIONS[:4] + (i * 3 // SEGMENTS).to_bytes(4, "big") + OPTIONS[8:],
        )
        for i in range(SEGMENTS)
    ]
    burst = burst_of(*packets)
    burst.cache = ViewCache(burst.view)
    return burst


def _packet(payload: bytes, host: int = 2) -> bytes:
    """IPv4 to 10.0.0.`host`, TCP with timestamps: 52 bytes before the payload; its checksum is left to the offload."""
    header = bytearray(20)
    header[0], header[6], header[8], header[9] = 0x45, 0x40, 64, 6
    header[2:4] = (52 + len(payload)).to_bytes(2, "big")
    header[12:20] = bytes((10, 0, 0, 1, 10, 0, 0, host))
    header[10:12] = checksum(header).to_bytes(2, "big")
    tcp = bytearray(32)
    tcp[0:4] = (40000).to_bytes(2, "big") + (5201).to_bytes(2, "big")
    tcp[12], tcp[13] = 8 << 4, 0x10
    tcp[16:18] = pseudo_header_sum(header[12:20], 6, len(tcp) + len(payload)).to_bytes(2, "big")
    tcp[20:32] = b"\x01\x01\x08\x0a" + bytes(8)
    return bytes(header + tcp) + payload
