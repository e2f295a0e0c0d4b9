"""However datagrams are read together, a device does with them what it would with each by itself."""

from __future__ import annotations

from ipaddress import ip_network
from random import Random
from struct import pack

from hypothesis import given
from hypothesis import strategies as st

from tests.support.packets import ipv4_packet, ipv6_packet
from tests.support.world import Host, World
from wgpy.burst import Datagrams
from wgpy.constants import MESSAGE_INITIATION, MESSAGE_TRANSPORT, REPLAY_WINDOW, TRANSPORT_OVERHEAD
from wgpy.device.changes import AllowedIPChange
from wgpy.device.device import Device
from wgpy.device.effects import Effects
from wgpy.device.keypair import MAX_RUN, Keypair
from wgpy.device.timers import Timers
from wgpy.endpoint import Endpoint

SOURCES = ["10.0.0.1", "10.0.0.77", "10.0.0.3", "10.9.9.9"]  # a's, a's, c's, nobody's
KINDS = ["v4", "v4", "v4", "v6", "v6", "options", "long", "short", "noise"]
SOURCES_V6 = ["fd00::1", "fd00::2", "fd00:9::1", "fd00:9::2"]


class Pair:
    """The same world twice: in one of them datagrams come together, in the other alone."""

    def __init__(self) -> None:
        self.worlds = World(1), World(1)
        self.receivers: list[Host] = []
        for world in self.worlds:
            a, b, c = world.host("a"), world.host("b"), world.host("c")
            world.introduce(a, b)
            world.introduce(c, b)
            more = tuple(AllowedIPChange(ip_network(each)) for each in ("10.0.0.64/26", "fd00::/126"))
            world.configure(b, public_key=a.public_key, allowed_ips=more)
            for sender in (a, c):
                world.send(sender, b)
                world.run(1)
            world.run(130)
            world.send(a, b)  # and its session is renewed
            world.run(1)
            self.receivers.append(b)

    def keypairs(self) -> list[Keypair]:
        """Those that seal to the receiver: two of `a`, of which the second soon expires, and one of `c`."""
        peers = [self.worlds[0].hosts[name].device._peers[self.receivers[0].public_key] for name in "ac"]
        return [keypair for peer in peers for keypair in peer.keypairs]


KEYPAIRS = Pair().keypairs()
HOME, AWAY, FAR = Endpoint("192.0.2.1", 51820), Endpoint("198.51.100.7", 4444), Endpoint("203.0.113.9", 9)


def plaintext(size: int, kind: str, source: int, random: Random) -> bytes:
    """So many bytes: a packet and its padding, or something that is none."""
    room = random.randrange(40)
    if kind == "noise" or size < (40 if kind == "v6" else 20):
        return random.randbytes(size)
    if kind == "v6":
        packet = ipv6_packet(SOURCES_V6[source], "fd00::5", bytes(max(0, size - 40 - room)))
    else:
        packet = ipv4_packet(SOURCES[source], "10.0.0.2", bytes(max(0, size - 20 - room)))
    spoilt = bytearray(packet.ljust(size, b"\0"))
    if kind == "options":
        spoilt[0] = 0x46
    elif kind in ("long", "short"):
        spoilt[2:4] = pack(">H", size + 1 if kind == "long" else 19)
    return bytes(spoilt)


def datagrams(random: Random) -> list[bytes]:
    """None longer than the first, and most as long, in runs that are consecutive, repeated, forged or nobody's."""
    size = random.choice([32, 52, 80, 96, 148, 148])
    room = size - TRANSPORT_OVERHEAD
    whole: list[bytes] = []
    for _ in range(random.randint(1, 8)):
        keypair = random.choice(KEYPAIRS)
        counter = random.choice([random.randint(5, 40), 200, REPLAY_WINDOW, REPLAY_WINDOW + 30, 20000])
        kinds, sources = random.choices(KINDS, k=3), random.choices(range(len(SOURCES)), k=3)
        if random.random() < 0.6:
            kinds = kinds[:1] * 3
        if random.random() < 0.6:
            sources = sources[:1] * 3
        inside = [plaintext(room, kind, source, random) for kind, source in zip(kinds, sources, strict=True)]
        count = random.choice([1, 2, 3, MAX_RUN, MAX_RUN + 3])
        run = [sealed(keypair, counter + i, inside[i % 3]) for i in range(count)]
        match random.choice(
            ["good", "good", "good", "forged", "repeated", "short", "unknown", "handshake", "reserved"]
        ):
            case "forged":
                for place in {0, random.randrange(count), count - 1}:
                    if random.random() < 0.5:
                        run[place] = run[place][:-1] + bytes([run[place][-1] ^ 1])
            case "repeated":
                run.insert(random.randint(0, count), random.choice(run))
            case "unknown":
                run = [datagram[:4] + b"\xff" * 4 + datagram[8:] for datagram in run]
            case "handshake":
                run[0] = bytes([MESSAGE_INITIATION, 0, 0, 0]) + run[0][4:]
            case "short":
                for place in range(bool(not whole), count, random.randint(1, 5)):
                    inner = plaintext(random.randint(0, room), kinds[0], sources[0], random)
                    run[place] = sealed(keypair, counter + place, inner)
            case "reserved":
                run[-1] = run[-1][:3] + b"\1" + run[-1][4:]
        whole += run
    shorter = random.randrange(size)
    if shorter >= TRANSPORT_OVERHEAD:
        whole.append(sealed(KEYPAIRS[0], 60, plaintext(shorter - TRANSPORT_OVERHEAD, "v4", 0, random)))
    elif shorter:
        whole.append(whole[0][:shorter])
    return whole


def together_in_slots(each: list[bytes]) -> Datagrams:
    """As the reader of a socket leaves them, with something old behind those that are shorter than the first."""
    size = len(each[0])
    view = memoryview(bytearray(b"".join(one.ljust(size, b"\x04") for one in each)))
    short = {i: len(one) for i, one in enumerate(each[:-1]) if len(one) < size}
    return Datagrams(view[: (len(each) - 1) * size + len(each[-1])], size, short=short)


def sealed(keypair: Keypair, counter: int, plaintext: bytes) -> bytes:
    header = pack("<IIQ", MESSAGE_TRANSPORT, keypair.remote_index, counter)
    return header + keypair.sending.encrypt(pack("<4xQ", counter), plaintext, None)


def timers(device: Device) -> list[list[object]]:
    return [
        [getattr(peer.timers, name) for name in Timers.__slots__ if name != "random"] for peer in device._peers.values()
    ]


def told(effects: list[Effects]) -> tuple[list[object], ...]:
    """What was delivered, and each peer's datagrams and events: between two peers, these have no order."""
    transmits = [transmit for each in effects for transmit in each.transmits]
    transmits.sort(key=lambda transmit: bytes(transmit.public_key or b""))
    events = [event for each in effects for event in each.events]
    events.sort(key=lambda event: bytes(event.public_key))
    return (
        [bytes(packet) for each in effects for burst in each.deliveries for packet in burst.packets()],
        [bytes(transmit.datagrams.view) for transmit in transmits],
        [*events],
    )


@given(st.randoms(use_true_random=True))
def test_how_datagrams_are_read_together_makes_no_difference(random: Random) -> None:
    pair = Pair()
    together, alone = (receiver.device for receiver in pair.receivers)
    now = pair.worlds[0].now
    for _ in range(3):
        each = datagrams(random)
        now += random.choice([0, 0, 60])
        origins = [(random.choice([HOME, AWAY]), random.randrange(4))] * len(each)
        for first in sorted(random.sample(range(1, len(each)), min(random.choice([0, 0, 1, 3, 20]), len(each) - 1))):
            origins[first:] = [(random.choice([HOME, AWAY, FAR]), random.randrange(4))] * (len(each) - first)
        changes = [i for i in range(1, len(each)) if origins[i] != origins[i - 1]]
        senders = [(i, *origins[i]) for i in changes]
        effects = [together.receive(together_in_slots(each), origins[0][0], now, origins[0][1], senders=senders)]
        assert told(effects) == told(
            [
                alone.receive(Datagrams.of(datagram), source, now, ecn)
                for datagram, (source, ecn) in zip(each, origins, strict=True)
            ]
        )
        assert together.status() == alone.status()
        assert timers(together) == timers(alone)
