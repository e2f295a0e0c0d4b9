"""Two WireGuard devices in one process, without a socket, a TUN, or a clock: `wgpy.Device` is sans-I/O.

Each call takes what happened and returns what to do. Here the "network" is a Python list and the time is a number, so
three minutes of protocol pass in a few milliseconds. Run it with: python examples/device_pair.py
"""

from __future__ import annotations

import os
from ipaddress import ip_network

from wgpy import Device, DeviceChange, Effects, Endpoint, PeerChange, PrivateKey
from wgpy.device.changes import AllowedIPChange

LEFT, RIGHT = Endpoint("192.0.2.1", 51820), Endpoint("192.0.2.2", 51820)
# 10.0.0.1 -> 10.0.0.2, an empty UDP-like IPv4 packet
PACKET = bytes.fromhex("45000014000000004011" + "66d7" + "0a000001" + "0a000002")


def device(key: PrivateKey, peer: PrivateKey, endpoint: Endpoint, peer_address: str, now: float) -> Device:
    made = Device(random=os.urandom, wall_clock=lambda: 1_700_000_000_000_000_000 + int(now * 1e9))
    made.configure(
        DeviceChange(
            private_key=key,
            peers=(
                PeerChange(
                    public_key=peer.public_key,
                    endpoint=endpoint,
                    allowed_ips=(AllowedIPChange(ip_network(peer_address)),),
                ),
            ),
        ),
        now,
    )
    made.start(now)
    return made


def main() -> None:
    now = 0.0
    left_key, right_key = PrivateKey.generate(), PrivateKey.generate()
    left = device(left_key, right_key, RIGHT, "10.0.0.2", now)
    right = device(right_key, left_key, LEFT, "10.0.0.1", now)

    wire: list[tuple[Device, Endpoint, Effects]] = [(right, LEFT, left.send(PACKET, now))]
    while wire:
        receiver, source, effects = wire.pop(0)
        for transmit in effects.transmits:
            for datagram in transmit.datagrams:
                print(f"{source} -> {transmit.endpoint}: type {datagram[0]}, {len(datagram)} bytes")
            answer = receiver.receive(transmit.datagrams, source, now)
            for burst in answer.deliveries:
                print(f"delivered: {[bytes(packet).hex() for packet in burst.packets()]}")
            other = (left, RIGHT) if receiver is right else (right, LEFT)
            wire.append((*other, answer))
    due = left.next_timeout()
    print(f"left next has to be called at {due:.1f} s" if due else "left has nothing to do")


if __name__ == "__main__":
    main()
