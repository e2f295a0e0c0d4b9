"""What coverage-guided fuzzing tries to break: each target takes any bytes and says in a sentence what must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from ipaddress import ip_network
from typing import Final

from tests.stack.line import PORT
from tests.stack.peer import drain, fragment, make_host, opened, segment
from tests.support import reference
from tests.support.bursts import (
    MTUS,
    OPTIONS,
    V4,
    V6,
    burst_of,
    by_flow,
    outcome,
    slots,
    super_header,
    tcp_run,
    udp_run,
)
from tests.support.packets import ipv4_packet, ipv6_packet
from tests.support.reference import tcp_packet, udp_packet
from tests.support.world import Host, Link, World
from wgpy.burst import Burst, Datagrams
from wgpy.config import wg, wgquick
from wgpy.config.uapi import _SET_DEVICE, _SET_PEER, UapiError, format_set, format_status, parse_set, parse_status
from wgpy.config.wgquick import ROWS, ConfigFileError
from wgpy.constants import COOKIE_REPLY_SIZE, DEFAULT_MTU, INITIATION_SIZE, MAC_SIZE, REKEY_AFTER_TIME, RESPONSE_SIZE
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.device.effects import Effects
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.noise.cookie import CookieChecker, CookieStamp
from wgpy.noise.handshake import LocalStatic, RemoteStatic, create_initiation
from wgpy.noise.tai64n import tai64n
from wgpy.stack.departures import finished
from wgpy.stack.tcp.header import ACK, FIN, RST, SYN, Options
from wgpy.tun.merging import merge
from wgpy.tun.splitting import split
from wgpy.tun.virtio import GSO_NONE, NEEDS_CSUM, VNET_HEADER_SIZE, VnetHeader

Target = Callable[[bytes], None]


class Script:
    """Bytes read as small numbers; past the end all are zero."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def number(self, below: int) -> int:
        taken, self._rest = self._rest[:2], self._rest[2:]
        return int.from_bytes(taken, "little") % below

    def edits(self) -> Iterable[tuple[int, int, int]]:
        """What is left, as up to 16 of: which item, where in it, and what to flip."""
        for _ in range(16):
            if not self._rest:
                return
            yield self.number(1 << 16), self.number(1 << 16), self.number(256)

    def rest(self) -> bytes:
        return self._rest


def edited(items: list[bytes], script: Script) -> list[bytes]:
    """Copies with some bytes flipped; a flip behind the end cuts the item there instead, so short ones come up too."""
    copies = [bytearray(item) for item in items]
    for item, at, flip in script.edits():
        copy = copies[item % len(copies)]
        if at < len(copy):
            copy[at] ^= flip
        else:
            del copy[at % (len(copy) + 1) :]
    return [bytes(copy) for copy in copies]


# The wire.


class Attacked:
    """Host a, in a session with b and waiting for the response to a second initiation; and all b might send it now."""

    def __init__(self) -> None:
        self.world = world = World()
        self.a, b = world.pair()
        world.send(self.a, b)
        world.run(REKEY_AFTER_TIME + 1)
        world.link = Link(cut=True)
        world.send(b, self.a, b"data")
        data = world.eve[-1].datagram
        world.send(self.a, b)  # under the old key, and asks for a new one
        pending = world.eve[-1].datagram
        world.arrive(b, pending, self.a.endpoint)
        response = world.eve[-1].datagram
        local, stamp = LocalStatic(b.private_key), CookieStamp(self.a.public_key)
        remote, stamped_at = RemoteStatic.of(local, self.a.public_key), tai64n(world.wall_ns(b) + 10**9)
        initiation, _ = create_initiation(local, remote, PrivateKey(b"e" * 32), 7, stamped_at)
        index = int.from_bytes(pending[4:8], "little")
        cookie = CookieChecker(b.public_key).create_reply(pending, index, b"source", world.now, world.random.randbytes)
        self.genuine = [data, response, stamp.stamp(initiation, world.now), cookie]

    def is_genuine(self, datagram: bytes) -> bool:
        """Whether b might have sent it: anybody may put another sender index into a handshake and sign it anew."""
        if len(datagram) not in (INITIATION_SIZE, RESPONSE_SIZE):
            return datagram in self.genuine
        alike = (_signed(sent[:4] + datagram[4:8] + sent[8:]) for sent in self.genuine)
        return datagram[:-MAC_SIZE] in [message[:-MAC_SIZE] for message in alike]  # nobody has asked for mac2

    def state(self) -> list[object]:
        """All that a remembers and does not count."""
        device = self.a.device
        (peer,) = device._peers.values()
        kept: list[object] = [dict(device._indices._entries), device._deadlines._heap[:], list(peer.staged)]
        kept += [{name: value for name, value in vars(peer).items() if name != "drops"}, vars(peer.cookie_stamp).copy()]
        kept += [vars(peer.handshake).copy(), list(peer.keypairs)]
        for part in (peer.timers, peer.keypairs.current, peer.keypairs.current and peer.keypairs.current.replay):
            kept += [getattr(part, name) for name in part.__slots__] if part else []
        return kept


@cache
def _attacked() -> Attacked:
    return Attacked()  # one for all: that it stays as it is is what is claimed


def datagrams(data: bytes) -> None:
    """What differs in any bit from what the peer sent is counted, once, and neither answered, delivered nor remembered.

    It is one of the messages the peer could send now, changed, maybe more than once; or anything at all. Under load the
    answer may be a cookie.
    """
    attacked, script = _attacked(), Script(data)
    kind, size, loaded = script.number(8), script.number(200) + 1, script.number(2)
    if kind < len(attacked.genuine):
        copies, signed = [attacked.genuine[kind]] * (1 + script.number(3)), script.number(2)
        messages = edited(copies, script)
        stream, size = b"".join(map(_signed, messages) if signed else messages), len(messages[0]) or size
    else:
        stream = script.rest()
    arriving = Datagrams(memoryview(bytearray(stream)), size)
    if any(attacked.is_genuine(bytes(datagram)) for datagram in arriving):
        return
    device, before = attacked.a.device, attacked.state()
    drops = _dropped(device.status())
    effects = device.receive(arriving, Endpoint("198.51.100.9", 9), attacked.world.now, under_load=bool(loaded))
    cookies = [transmit for transmit in effects.transmits if len(transmit.datagrams.view) == COOKIE_REPLY_SIZE]
    expected = Effects()
    expected.transmits = cookies if loaded else []
    assert effects == expected
    assert attacked.state() == before
    assert _dropped(device.status()) == drops + len(arriving)


def _signed(message: bytes) -> bytes:
    """With a mac1 that lets it past the first look, as anybody makes it who knows the public key."""
    if len(message) not in (INITIATION_SIZE, RESPONSE_SIZE):
        return message
    return CookieStamp(_attacked().a.public_key).stamp(message[: -2 * MAC_SIZE], 0)


def _dropped(status: DeviceStatus) -> int:
    return sum(status.drops.values()) + sum(sum(peer.drops.values()) for peer in status.peers)


# The host.


@cache
def _carriers() -> tuple[World, Host, Host]:
    """Host a, who sends a lower half of the addresses to b, and the next quarter to somebody of unknown endpoint."""
    world = World()
    a, b = world.pair()
    for host, other, networks in ((a, b, ("0.0.0.0/1", "::/1")), (b, a, ("0.0.0.0/0", "::/0"))):
        allowed_ips = tuple(AllowedIPChange(ip_network(network)) for network in networks)
        world.configure(host, public_key=other.public_key, allowed_ips=allowed_ips)
    nowhere = tuple(AllowedIPChange(ip_network(network)) for network in ("128.0.0.0/2", "8000::/2"))
    world.configure(a, public_key=PublicKey(b"c" * 32), allowed_ips=nowhere)
    world.send(a, b)
    world.run(1)
    return world, a, b


def inner_packets(data: bytes) -> None:
    """A packet comes out at the peer that owns its destination as it went in, or is counted there or here, and no more.

    What cannot be carried may be answered with one ICMP error to its source.
    """
    if not data:
        return
    world, a, b = _carriers()
    version = data[0] >> 4 if len(data) >= {4: 20, 6: 40}.get(data[0] >> 4, 1 << 16) else 0
    source, first = (data[12:16], data[16]) if version == 4 else (data[8:24], data[24]) if version == 6 else (b"", 0)
    sent, refused = _dropped(a.device.status()), _dropped(b.device.status())
    effects = a.device.send(data, world.now)
    if version and first < 0x80:
        assert not effects.deliveries
        (transmit,) = effects.transmits
        assert transmit.endpoint == b.endpoint
        arrived = b.device.receive(transmit.datagrams, a.endpoint, world.now)
        stated = int.from_bytes(data[2:4], "big") if version == 4 else 40 + int.from_bytes(data[4:6], "big")
        fits = (20 if version == 4 else 40) <= stated <= _padded(len(data))
        expected = [data.ljust(stated, b"\0")[:stated]] if fits else []
        assert [bytes(packet) for burst in arrived.deliveries for packet in burst.packets()] == expected
        assert _dropped(b.device.status()) == refused + (not fits)
        assert _dropped(a.device.status()) == sent
    else:
        assert not effects.transmits
        assert _dropped(a.device.status()) == sent + 1
        for answer in effects.deliveries:
            (packet,) = answer.packets()
            assert packet[0] >> 4 == version
            assert bytes(packet[16:20] if version == 4 else packet[24:40]) == source


def _padded(length: int) -> int:
    whole, tail = divmod(length, DEFAULT_MTU)
    return whole * DEFAULT_MTU + min(DEFAULT_MTU, -(-tail // 16) * 16)


def vnet_headers(data: bytes) -> None:
    """A packet with a virtio_net_hdr is cut as the slow twin cuts it, or refused."""
    if len(data) <= VNET_HEADER_SIZE:
        return
    header, packet = VnetHeader.unpack(data), data[VNET_HEADER_SIZE:]
    burst = split(header, memoryview(packet), slots(), MTUS)
    if burst is None:
        return
    if header.gso_type == GSO_NONE:
        expected = bytearray(packet)
        if header.flags & NEEDS_CSUM:
            field = header.csum_start + header.csum_offset
            expected[field : field + 2] = (reference.internet_checksum(packet[header.csum_start :]) or 0xFFFF).to_bytes(
                2
            )
        assert [bytes(expected)] == list(burst.packets())
    elif packet[0] >> 4 == 4 or header.csum_start == 40:  # the twin knows no extension headers
        assert list(burst.packets()) == reference.segment_packet(packet, header.gso_size)


_FLOWS: Final = {
    "tcp4": tcp_run(6, 40),
    "tcp6": tcp_run(5, 41, V6, tcp_options=OPTIONS),
    "udp4": udp_run(6, 32, dont_fragment=False),
    "udp6": udp_run(5, 33, V6),
}


def bursts(data: bytes) -> None:
    """Merged packets, split again by the slow twin, are what arrived, each flow in order: what was corrupt stays so."""
    script = Script(data)
    flow, summed = list(_FLOWS.values())[script.number(len(_FLOWS))], script.number(2)
    packets = edited(flow, script)
    if summed:
        packets = list(map(_summed, packets))
    merged = [packet for write in merge(burst_of(*packets)) for packet in outcome(write)]
    assert by_flow(merged) == by_flow([packet for packet in packets if packet])


def _summed(packet: bytes) -> bytes:
    """With checksums made good, where its lengths leave room for them."""
    start = 20 if packet[:1] == b"\x45" else 40
    udp = len(packet) > start and packet[9 if start == 20 else 6] == 17
    field = start + (6 if udp else 16)
    if len(packet) < field + 2:
        return packet
    mended = bytearray(packet)
    if start == 20:
        mended[10:12] = bytes(2)
        mended[10:12] = reference.internet_checksum(bytes(mended[:20])).to_bytes(2)
    addresses = mended[12:20] if start == 20 else mended[8:40]
    mended[field : field + 2] = bytes(2)
    pseudo = bytes(addresses) + (len(packet) - start).to_bytes(4) + bytes((0, 0, 0, 17 if udp else 6))
    mended[field : field + 2] = (reference.internet_checksum(pseudo + mended[start:]) or 0xFFFF).to_bytes(2)
    return bytes(mended)


# Text.


def stack(data: bytes) -> None:
    """Whatever comes to a host of the TCP/IP stack, nothing raises, and every byte that is held is accounted for."""
    script = Script(data)
    host = make_host()
    listener = host.listen(None, PORT)
    connections = [opened(host, port=port, listener=listener) for port in (1024, 1025)]
    connections[0].write(bytes(5000))
    host.wake(connections[0])
    drain(host)
    isn = connections[0].framing.isn
    packets = [_STACK_PACKETS[script.number(len(_STACK_PACKETS))] for _ in range(1 + script.number(4))]
    for at, packet in enumerate(edited(packets, script)):
        if len(packet) > 40 and packet[9:10] == b"\x06" and script.number(2):
            packet = _acknowledging(packet, isn + 1 + script.number(6000))
        if packet:
            host.receive(Burst.of(packet), at / 10)
        drain(host, at / 10)
        host.handle_timeout(at / 10)
    for connection in connections:
        sender, receiver = connection.sender, connection.receiver
        assert sender.in_flight + sender.sacked + sender.lost == sender.next - sender.acknowledged
        assert receiver.unread_size == sum(map(len, receiver.unread))


def _acknowledging(packet: bytes, number: int) -> bytes:
    """The packet with another acknowledgement, and a good checksum."""
    changed = bytearray(packet)
    changed[28:32] = (number & 0xFFFFFFFF).to_bytes(4)
    changed[36:38] = bytes(2)
    return bytes(finished(bytes(changed), b""))


def uapi(data: bytes) -> None:
    """A request is refused with the device as it was, or taken, and then what the device answers reads as it is."""
    lines = data.decode("ascii", errors="replace").split("\n")
    device = Device(random=bytes, wall_clock=lambda: 0)
    device.configure(_GOOD_CHANGE, 0)
    before = device.status()
    try:
        change = parse_set(lines)
    except UapiError:
        return
    first, *again, _, _ = format_set(change).split("\n")
    assert (first, parse_set(again)) == ("set=1", change)
    try:
        device.configure(change, 0)
    except ConfigError:
        assert device.status() == before
    assert parse_status(format_status(device.status())) == device.status()


def config(data: bytes) -> None:
    """A file is refused, or kept to the byte; and stripped it is one that `wg` reads, with nothing left to strip."""
    text = data.decode(errors="replace")
    try:
        file = wgquick.parse(text)
    except ConfigFileError:
        return
    assert str(file) == text
    stripped = file.strip()
    assert wgquick.parse(stripped).strip() == stripped
    wg.parse(stripped)


_GOOD_FILE: Final = """[Interface]
PrivateKey = QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=
Address = 10.8.0.1/24, fd08::1/64
ListenPort = 51820
FwMark = 0x7
DNS = 1.1.1.1, example.org
MTU = 1420
Table = auto
PostUp = echo %i # comment
SaveConfig = false

[Peer]
# Name = laptop
PublicKey = ZmVkY2JhWllYV1ZVVFNSUVBPTk1MS0pJSEdGRURDQkE=
PresharedKey = QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=
Endpoint = [2001:db8::1%eth0]:51820
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 25
"""
_GOOD_CHANGE: Final = DeviceChange(
    private_key=PrivateKey(b"k" * 32),
    listen_port=51820,
    fwmark=7,
    replace_peers=True,
    peers=(
        PeerChange(public_key=PublicKey(b"p" * 32), remove=True),
        PeerChange(
            public_key=PublicKey(b"q" * 32),
            preshared_key=PresharedKey(b"s" * 32),
            endpoint=Endpoint("fe80::1", 1, scope_id=2),
            persistent_keepalive=25,
            replace_allowed_ips=True,
            allowed_ips=(AllowedIPChange(ip_network("10.0.0.0/8")), AllowedIPChange(ip_network("::/0"), remove=True)),
        ),
    ),
)
_SUPER_PACKETS: Final = [make(*ends, bytes(range(100))) for make in (tcp_packet, udp_packet) for ends in (V4, V6)]

_STACK_PACKETS: Final = [
    bytes(burst.packet(0))
    for burst in (
        segment(1, 0, SYN, options=Options(1380, 7, True, (1, 0)).pack()),
        segment(1, 1, ACK, b"payload", options=Options(timestamp=(2, 1), sacks=((5, 9),)).pack()),
        segment(8, 1, ACK | FIN),
        segment(9, 1, RST),
        fragment(1, 0, bytes(16), more=True),
        fragment(1, 16, bytes(7), more=False),
    )
]

# What to begin with: inputs that get far.
SEEDS: Final[dict[Target, list[bytes]]] = {
    datagrams: [
        bytes((kind, 0, 91, 0, at & 1, 0, more, 0, more >> 1, 0, 0, 0, at, 0, 1, 0))
        for kind in range(5)
        for more in (0, 2)
        for at in (1, 5, 60)
    ],
    inner_packets: [
        make(source, destination, b"payload")
        for make, source, destinations in (
            (ipv4_packet, "10.0.0.1", ("10.0.0.2", "130.0.0.1", "200.0.0.1")),
            (ipv6_packet, "fd00::1", ("1::2", "8000::1", "fd00::2")),
        )
        for destination in destinations
    ],
    vnet_headers: [super_header(packet, 40).pack() + packet for packet in _SUPER_PACKETS],
    bursts: [
        bytes((flow, 0, at & 1, 0, i, 0, at, 0, 1, 0)) for flow in range(4) for i in (0, 3) for at in (2, 9, 25, 50)
    ],
    stack: [bytes((i, 0, 9, 0, 1, 0)) for i in range(len(_STACK_PACKETS))],
    uapi: [format_set(_GOOD_CHANGE).partition("\n")[2].rstrip("\n").encode()],
    config: [_GOOD_FILE.encode(), _GOOD_FILE.replace("\n", "\r\n").encode()],
}
TARGETS: Final = {target.__name__: target for target in SEEDS}
# Words that no mutation finds by itself.
WORDS: Final = {
    uapi: [*_SET_DEVICE, *_SET_PEER, "true", "1.2.3.4:5", "[::1]:1", "-::/0", "10.0.0.0/8"],
    config: ["[Interface]", "[Peer]", *(f"{key.name} = " for key in ROWS), "off", "auto", "0x", "::/0", "# Name = "],
}
