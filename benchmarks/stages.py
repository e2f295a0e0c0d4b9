"""What each stage of the data path costs per packet, without a kernel: split, route and seal, open and check, merge.

Each stage works on bursts of 44 full segments, as one read from the TUN gives them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from wgpy.burst import Burst, Datagrams
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey
from wgpy.tun.checksum import checksum, pseudo_header_sum
from wgpy.tun.offload import GSO_TCPV4, SLOTS_SIZE, VnetHeader, merge, split

SEGMENTS = 44
MSS = 1368
MTU = 1420
HERE, THERE = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 1)


def measure(seconds: float = 1.0) -> dict[str, float]:
    """Microseconds per packet of each stage, the best of many rounds."""
    sender, receiver = _connected_pair()
    super_packet = _super_packet()
    header = VnetHeader(flags=1, gso_type=GSO_TCPV4, hdr_len=52, gso_size=MSS, csum_start=20, csum_offset=16)
    slots = memoryview(bytearray(SLOTS_SIZE))

    def cut() -> Burst:
        burst = split(header, super_packet, slots, MTU)
        assert burst is not None
        return burst

    def sealed() -> Datagrams:
        (transmit,) = sender.send(cut(), 1.0).transmits
        return transmit.datagrams

    def opened(datagrams: Datagrams) -> Burst:
        (burst,) = receiver.receive(datagrams, HERE, 1.0).deliveries
        return burst

    assert bytes(opened(sealed()).packet(SEGMENTS - 1))[52:] == b"p" * MSS
    keypair = next(iter(sender._peers.values())).current
    assert keypair is not None
    stages: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
        "split a super-packet": (lambda: None, lambda _: cut()),
        "seal (the AEAD in place)": (cut, keypair.seal),
        "send: route, seal, count": (cut, lambda burst: sender.send(burst, 1.0)),
        "receive: open, check, count": (sealed, lambda datagrams: receiver.receive(datagrams, HERE, 1.0)),
        "merge into a super-packet": (lambda: opened(sealed()), merge),
    }
    return {name: _best(prepare, act, seconds) for name, (prepare, act) in stages.items()}


def _best(prepare: Callable[[], Any], act: Callable[[Any], object], seconds: float) -> float:
    """Microseconds per packet of the fastest round. Each round works on fresh input, made outside the clock."""
    best, end = float("inf"), time.monotonic() + seconds
    while time.monotonic() < end:
        given = prepare()
        begin = time.perf_counter()
        act(given)
        best = min(best, time.perf_counter() - begin)
    return best / SEGMENTS * 1e6


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


def _packet(payload: bytes) -> bytes:
    """IPv4 and TCP with timestamps: 52 bytes before the payload; the TCP checksum is left to the offload."""
    header = bytearray(20)
    header[0], header[8], header[9] = 0x45, 64, 6
    header[2:4] = (52 + len(payload)).to_bytes(2, "big")
    header[12:20] = bytes((10, 0, 0, 1, 10, 0, 0, 2))
    header[10:12] = checksum(header).to_bytes(2, "big")
    tcp = bytearray(32)
    tcp[0:4] = (40000).to_bytes(2, "big") + (5201).to_bytes(2, "big")
    tcp[12], tcp[13] = 8 << 4, 0x10
    tcp[16:18] = pseudo_header_sum(header[12:20], 6, len(tcp) + len(payload)).to_bytes(2, "big")
    tcp[20:32] = b"\x01\x01\x08\x0a" + bytes(8)
    return bytes(header + tcp) + payload


def _super_packet() -> memoryview:
    return memoryview(bytearray(_packet(b"p" * MSS * SEGMENTS)))
