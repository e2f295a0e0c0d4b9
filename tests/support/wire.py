"""A peer that speaks to a WireGuard program over a plain UDP socket, one datagram at a time: `wgpy.Device` by hand.

The Device has no clock, so a test can make it send an initiation at any moment by moving its time, and nothing leaves
but what the test sends: it can hold datagrams back, repeat them, change them, and send them from elsewhere.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final, NamedTuple

from tests.support.peers import Side
from tests.support.reference import internet_checksum, ip_packet
from wgpy.burst import Datagrams
from wgpy.constants import (
    INITIATION_INTERVAL,
    MAC_SIZE,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    MESSAGE_TRANSPORT,
    REKEY_TIMEOUT,
    TRANSPORT_OVERHEAD,
)
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.device.effects import Effects
from wgpy.device.keypair import Keypair
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey, PublicKey
from wgpy.noise.cookie import CookieStamp

PATIENCE: Final = 10.0  # seconds in which an honest datagram has to be answered
GRACE: Final = 0.15  # seconds in which more may come after that answer
ECHO_REPLY, ECHO_REQUEST = 0, 8
_ICMP: Final = 1
_SO_TIMESTAMPNS: Final = 35
_sequences = itertools.count(1)


class Received(NamedTuple):
    """A datagram of the program's: when it came (seconds since 1970), what it is, and the packets that were in it."""

    at: float
    data: bytes
    packets: tuple[bytes, ...] = ()

    @property
    def kind(self) -> int:
        return self.data[0]

    @property
    def is_keepalive(self) -> bool:
        return self.kind == MESSAGE_TRANSPORT and len(self.data) == TRANSPORT_OVERHEAD

    @property
    def echoed(self) -> int | None:
        """The sequence number of the ping that it answers."""
        for packet in self.packets:
            if packet[9] == _ICMP and packet[20] == ECHO_REPLY:
                return int.from_bytes(packet[26:28], "big")
        return None


class Driver:
    """One peer of the program on `side`, at a UDP socket of its own.

    It knows the program's key and address; the program has to be told of `section`.
    """

    def __init__(self, sock: socket.socket, side: Side, inner: str, *, key: PrivateKey | None = None) -> None:
        self.socket, self.inner = sock, inner
        self.key = key or PrivateKey.generate()
        self._side = side
        self._address = (side.outer, side.port)
        self._endpoint = Endpoint(side.outer, side.port)
        self._ahead = 0.0  # seconds by which the Device's time is ahead of ours
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.device = Device(random=os.urandom, wall_clock=time.time_ns)
        networks = (AllowedIPChange(ip_network(side.inner4)),)
        peer = PeerChange(public_key=side.public_key, endpoint=self._endpoint, allowed_ips=networks)
        self.device.configure(DeviceChange(private_key=self.key, peers=(peer,)), self.now)
        self.device.start(self.now)

    @property
    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self._ahead

    @property
    def public_key(self) -> PublicKey:
        return self.key.public_key

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    # Messages, made and not sent.

    def initiation(self) -> bytes:
        """A new one, newer than the last."""
        self._ahead += REKEY_TIMEOUT + 1
        peer = self.device._peers[self._side.public_key]
        peer.staged.clear()
        effects = Effects()
        peer.initiate(self.now, effects)
        return _only(effects)

    def response(self, initiation: Received) -> bytes:
        """The honest answer to an initiation of the program's."""
        return _only(self.handle(initiation.data))

    def ping(self, *, kind: int = ECHO_REQUEST, source: str = "", size: int = 56) -> tuple[bytes, int]:
        """A sealed ICMP packet under the current session, and its sequence number."""
        packet, sequence = self.ping_packet(kind=kind, source=source, size=size)
        return self.sealed(packet), sequence

    def ping_packet(self, *, kind: int = ECHO_REQUEST, source: str = "", size: int = 56) -> tuple[bytes, int]:
        """The same, not sealed."""
        sequence = next(_sequences) & 0xFFFF
        icmp = struct.pack(">BBHHH", kind, 0, 0, 7, sequence) + bytes(size)
        icmp = icmp[:2] + struct.pack(">H", internet_checksum(icmp)) + icmp[4:]
        return ip_packet(source or self.inner, self._side.inner4, _ICMP, icmp), sequence

    def sealed(self, packet: bytes, *, counter: int | None = None) -> bytes:
        """A packet, or anything else, as transport data; `counter` is where the session counts from then."""
        keypair = self.session
        if counter is not None:
            keypair.send_counter = counter
        padded = packet + bytes(-len(packet) % 16)
        nonce = struct.pack("<4xQ", keypair.send_counter)
        header = struct.pack("<IIQ", MESSAGE_TRANSPORT, keypair.remote_index, keypair.send_counter)
        keypair.send_counter += 1
        return header + keypair.sending.encrypt(nonce, padded, None)

    @property
    def session(self) -> Keypair:
        """The newest one; a test that wants an older holds it."""
        peer = self.device._peers[self._side.public_key]
        keypair = peer.keypairs.next or peer.keypairs.current
        assert keypair is not None, "there is no session"
        return keypair

    def with_macs(self, message: bytes) -> bytes:
        """A handshake message that was changed, with a mac1 that is right again."""
        return CookieStamp(self._side.public_key).stamp(message[: -2 * MAC_SIZE], 0)

    # To and fro.

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.socket.sendto(datagram, self._address)

    def receive(self, seconds: float) -> Received | None:
        """The next datagram, not looked at; None when none comes."""
        if not select.select([self.socket], [], [], max(0.0, seconds))[0]:
            return None
        data, ancillary, _, _ = self.socket.recvmsg(1 << 16, 64)
        (stamp,) = (value for level, kind, value in ancillary if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS))
        whole, fraction = struct.unpack("qq", stamp)
        return Received(whole + fraction / 1e9, data)

    def next(self, *kinds: int, seconds: float = PATIENCE) -> Received:
        """The next datagram of one of these kinds; others are passed over."""
        end = time.monotonic() + seconds
        while (received := self.receive(end - time.monotonic())) is not None:
            if received.kind in kinds:
                return received
        raise AssertionError(f"no message of type {' or '.join(map(str, kinds))} came within {seconds:g} s")

    def handle(self, data: bytes) -> Effects:
        """Let the Device take in a datagram; what it answers is not sent."""
        return self.device.receive(Datagrams.of(data), self._endpoint, self.now)

    def opened(self, received: Received) -> Received:
        packets = (bytes(packet) for burst in self.handle(received.data).deliveries for packet in burst.packets())
        return received._replace(packets=tuple(packets))

    def heard(self, seconds: float) -> list[Received]:
        """All that comes meanwhile, opened where it is transport data; the program's handshakes are not answered."""
        found, end = [], time.monotonic() + seconds
        while (received := self.receive(end - time.monotonic())) is not None:
            found.append(self.opened(received) if received.kind == MESSAGE_TRANSPORT else received)
        return found

    # What an honest peer does.

    def handshake(self) -> bytes:
        """Begin a session and confirm it; the initiation, which has been answered."""
        initiation = self.initiation()
        self.send(initiation)
        self.complete(self.next(MESSAGE_RESPONSE))
        time.sleep(2 * INITIATION_INTERVAL)  # or the next one is refused for having come too soon
        return initiation

    def complete(self, response: Received) -> None:
        effects = self.handle(response.data)
        assert effects.transmits, "the response does not answer the initiation"
        self.send(*_datagrams(effects))

    def answer(self) -> None:
        """Wait until the program begins a handshake, and answer it. It confirms the session at once."""
        self.send(self.response(self.next(MESSAGE_INITIATION)))
        confirmation = self.next(MESSAGE_TRANSPORT)
        self.handle(confirmation.data)

    def exchange(self, *datagrams: bytes, elsewhere: socket.socket | None = None) -> list[Received]:
        """Send these and then an honest ping; what comes besides the answer to it, until a moment after.

        Thus silence is told from slowness. With `elsewhere` the datagrams, not the ping, leave from that socket.
        """
        for datagram in datagrams:
            (elsewhere or self.socket).sendto(datagram, self._address)
        ping, sequence = self.ping()
        self.send(ping)
        found: list[Received] = []
        end = time.monotonic() + PATIENCE
        while not any(received.echoed == sequence for received in found):
            received = self.receive(end - time.monotonic())
            assert received is not None, "the session no longer answers an honest ping"
            found.append(self.opened(received) if received.kind == MESSAGE_TRANSPORT else received)
        found += self.heard(GRACE)
        return [received for received in found if received.echoed != sequence]

    def echoes(self, *datagrams: bytes, elsewhere: socket.socket | None = None) -> list[int | None]:
        """The pings that are answered when these datagrams are sent."""
        return [received.echoed for received in self.exchange(*datagrams, elsewhere=elsewhere) if received.packets]


def _datagrams(effects: Effects) -> Sequence[bytes]:
    return [bytes(datagram) for transmit in effects.transmits for datagram in transmit.datagrams]


def _only(effects: Effects) -> bytes:
    (datagram,) = _datagrams(effects)
    return datagram
