"""A host in the tunnel: its addresses, connections, listeners and sockets, without input, output or a clock.

::

    connection = host.connect(address, port, now)  # a SYN is to leave
    host.collect(burst, now)                       # bursts as Device delivers them, and when there is no more:
    news = host.handle(now)
    burst = host.transmit(now)                     # the next Burst for Device.send; None: nothing is to leave
    news = host.handle_timeout(now)                # at or after host.next_timeout()

`now` is seconds and never goes back. After an application has written, read or closed, `wake` the connection.
What peers can make grow is bounded: half-open and waiting connections by their listener, TIME-WAIT, fragments,
datagrams and answers by constants, received bytes by one budget.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection
from errno import EADDRINUSE, EADDRNOTAVAIL, EMSGSIZE, ENETUNREACH, ENOBUFS
from hashlib import blake2s
from typing import Final

from wgpy.burst import Burst
from wgpy.stack import icmp, ip, udp
from wgpy.stack.deadlines import Deadlines
from wgpy.stack.departures import Batches, Packet, Slots, finished
from wgpy.stack.failures import failure
from wgpy.stack.fragments import Fragments
from wgpy.stack.memory import Budget
from wgpy.stack.news import Listener, News
from wgpy.stack.paths import Paths
from wgpy.stack.tcp.arrivals import Arrivals, lone
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.framing import Departure, Names, reset
from wgpy.stack.tcp.header import ACK, FIN, MASK, RST, SYN, Options, Segment
from wgpy.stack.tcp.patience import Settings
from wgpy.stack.tcp.state import State

MEMORY: Final = 64 << 20  # bytes that peers may have sent and applications have not read
MAX_TIME_WAIT: Final = 4096
MAX_QUEUED: Final = 1024  # lone packets that are to leave: what comes beyond is lost, as on any network
MAX_ANSWERS: Final = 64  # resets and echo replies among them, which strangers cause
_EPHEMERAL: Final = range(32768, 61000)  # the kernel's ip_local_port_range
_TRIES: Final = 64


class Host:
    """One host. `random(n)` returns n unpredictable bytes; `mtu` is the tunnel's, in bytes."""

    def __init__(
        self, addresses: Collection[bytes], *, mtu: int, random: Callable[[int], bytes], memory: int = MEMORY
    ) -> None:
        """`addresses` are of 4 or 16 bytes; `memory` bounds what peers have sent and nobody has read, in bytes."""
        self.addresses: list[bytes] = list(addresses)
        self.mtu: int = mtu
        self.drops: Counter[ip.Drop] = Counter()
        self._random = random
        self._secret = random(32)
        self._budget = Budget(memory)
        self._slots = Slots(mtu)
        self._connections: dict[bytes, Connection] = {}
        self._listeners: dict[tuple[bytes | None, int], Listener] = {}
        self._listener_of: dict[Connection, Listener] = {}
        self._sockets: dict[tuple[bytes | None, int], udp.UdpSocket] = {}
        self._arrivals = Arrivals()
        self._news = News()
        self._fragments = Fragments()
        self._paths = Paths(mtu)
        self._time_wait: dict[Connection, None] = {}
        self._ready: dict[Connection, None] = {}
        self._queue: deque[Packet] = deque()
        self._answers = 0  # of the queue
        self._long: Departure | None = None  # of more than one segment, behind the batches
        self._batches = Batches(mtu)
        self._errors = icmp.ErrorLimit()
        self._deadlines = Deadlines()
        self._identification = int.from_bytes(random(2))

    # TCP.

    def connect(
        self,
        remote: bytes,
        port: int,
        now: float,
        *,
        local: bytes | None = None,
        local_port: int = 0,
        settings: Settings | None = None,
    ) -> Connection:
        """Open a connection from one of our addresses, and from a port that cannot be guessed (RFC 6056, 3.3.1).

        Raises OSError: ENETUNREACH without an address of the family, EADDRNOTAVAIL, EADDRINUSE.
        """
        source = local or self._source(remote)
        if source not in self.addresses:
            raise failure(EADDRNOTAVAIL)
        names = Names(source, local_port, remote, port)
        if not local_port:
            names = self._free(names)
        elif names.key in self._connections:
            raise failure(EADDRINUSE)
        connection = self._make(names, State.SYN_SENT, now, settings)
        self.wake(connection)
        return connection

    def _source(self, remote: bytes) -> bytes:
        source = next((address for address in self.addresses if len(address) == len(remote)), None)
        if source is None:
            raise failure(ENETUNREACH)
        return source

    def _free(self, names: Names) -> Names:
        for _ in range(_TRIES):
            number = _EPHEMERAL[int.from_bytes(self._random(4)) % len(_EPHEMERAL)]
            candidate = Names(names.local, number, names.remote, names.remote_port)
            if candidate.key not in self._connections:
                return candidate
        raise failure(EADDRNOTAVAIL)

    def _make(self, names: Names, state: State, now: float, settings: Settings | None) -> Connection:
        digest = blake2s(names.key, key=self._secret, digest_size=8).digest()
        isn = (int.from_bytes(digest[:4]) + int(now * 250_000)) & MASK  # RFC 6528, 3
        stamps = int.from_bytes(digest[4:])
        mtu = self._paths.longest(names.remote, now)
        connection = Connection(names, state, isn, stamps, mtu, self._budget, settings or Settings())
        self._connections[connection.key] = connection
        return connection

    def listen(self, address: bytes | None, port: int, backlog: int = 128) -> Listener:
        """Let connections come to a port (0: one that is free) of one of our addresses, None for all.

        Raises OSError: EADDRINUSE, EADDRNOTAVAIL.
        """
        port = self._bindable(self._listeners, address, port)
        listener = self._listeners[address, port] = Listener(address, port, max(1, backlog))
        return listener

    def _bindable(self, table: Collection[tuple[bytes | None, int]], address: bytes | None, port: int) -> int:
        if address is not None and address not in self.addresses:
            raise failure(EADDRNOTAVAIL)
        taken = {number for other, number in table if None in (other, address) or other == address}
        if not port:
            free = (_EPHEMERAL[int.from_bytes(self._random(4)) % len(_EPHEMERAL)] for _ in range(_TRIES))
            port = next((number for number in free if number not in taken), 0)
        if not port or port in taken:
            raise failure(EADDRINUSE)
        return port

    def accept(self, listener: Listener) -> Connection | None:
        """The connection that has waited longest, if there is one."""
        if not listener.waiting:
            return None
        connection = listener.waiting.popleft()
        self._listener_of.pop(connection, None)
        return connection

    def close_listener(self, listener: Listener) -> None:
        """Let no more connections come; those that nobody took are reset."""
        self._listeners.pop((listener.address, listener.port), None)
        for connection in [*listener.half_open, *listener.waiting]:
            connection.abort()
            self.wake(connection)
        listener.half_open.clear()
        listener.waiting.clear()

    def wake(self, connection: Connection) -> None:
        """The application did something: there may be more to send, or other times to heed."""
        if self._connections.get(connection.key) is connection:
            self._attend(connection)

    def resize(self, mtu: int, now: float) -> None:
        """No packet is longer than `mtu` bytes from now on; connections that are open use what the change allows.

        What is longer and waits to leave is lost.
        """
        self.mtu = self._paths.mtu = mtu
        self._slots, self._batches, self._long = Slots(mtu), Batches(mtu), None
        self._queue = deque(packet for packet in self._queue if len(packet) <= mtu)
        for connection in list(self._connections.values()):
            connection.resize(self._paths.longest(connection.names.remote, now))
            self.wake(connection)

    # UDP and ICMP.

    def bind_udp(self, address: bytes | None, port: int = 0) -> udp.UdpSocket:
        """Open a UDP socket on a port (0: one that is free). Raises OSError: EADDRINUSE, EADDRNOTAVAIL."""
        port = self._bindable(self._sockets, address, port)
        socket = self._sockets[address, port] = udp.UdpSocket(address, port)
        return socket

    def close_udp(self, socket: udp.UdpSocket) -> None:
        """Close a socket: what still comes to its port is refused."""
        self._sockets.pop((socket.address, socket.port), None)

    def send_udp(self, socket: udp.UdpSocket, payload: bytes, destination: udp.Address, now: float) -> None:
        """Send a datagram, in fragments if it must be. Raises OSError: EMSGSIZE, ENETUNREACH, ENOBUFS."""
        if len(payload) > udp.MAX_PAYLOAD[len(destination[0])]:
            raise failure(EMSGSIZE)
        source = socket.address or self._source(destination[0])
        if len(source) != len(destination[0]):
            raise failure(ENETUNREACH)
        message = udp.pack((source, socket.port), destination, payload)
        self._emit(source, destination[0], ip.UDP, message, now)

    def ping(self, destination: bytes, identifier: int, sequence: int, payload: bytes, now: float) -> None:
        """Send an echo request; its reply is in News. Raises OSError: EMSGSIZE, ENETUNREACH, ENOBUFS."""
        if len(payload) > udp.MAX_PAYLOAD[len(destination)]:
            raise failure(EMSGSIZE)
        source = self._source(destination)
        message = icmp.echo(source, destination, identifier, sequence, payload, is_reply=False)
        self._emit(source, destination, _icmp_protocol(source), message, now)

    def _emit(self, source: bytes, destination: bytes, protocol: int, message: bytes, now: float) -> None:
        self._identification = (self._identification + 1) & 0xFFFF
        mtu = self._paths.longest(destination, now)
        packets = ip.packets(source, destination, protocol, message, mtu, self._identification)
        if len(self._queue) + len(packets) > MAX_QUEUED:
            raise failure(ENOBUFS)
        self._queue += packets

    def _answer(self, packet: Packet) -> None:
        if self._answers >= MAX_ANSWERS or len(self._queue) >= MAX_QUEUED:
            self.drops[ip.Drop.RATE_LIMITED] += 1
            return
        self._answers += 1
        self._queue.append(packet)

    # From the tunnel.

    def receive(self, burst: Burst, now: float) -> News:
        """Take in the packets of one burst."""
        self.collect(burst, now)
        return self.handle(now)

    def collect(self, burst: Burst, now: float) -> bool:
        """Copy what connections are to have with the next `handle`. Whether there is other news, too."""
        others = self._arrivals.gather(burst, self.addresses)
        for i in others:
            self._packet(burst.packet(i), now)
        return bool(others and self._news)

    def handle(self, now: float) -> News:
        """Let each connection take in all that was collected for it, in one piece where it is one."""
        news, self._news = self._news, News()
        for key, segment in self._arrivals.take():
            self._segment(key, segment, now, news)
        return news

    def _packet(self, view: memoryview, now: float) -> None:
        packet = ip.parse(view)
        if isinstance(packet, ip.Packet) and packet.destination not in self.addresses:
            packet = ip.Drop.NOT_OURS
        if isinstance(packet, ip.Packet) and packet.fragment is not None:
            whole = self._fragments.take(packet, now)
            if whole is None:
                return
            packet = whole
        if isinstance(packet, ip.Packet):
            drop = self._deliver(packet, now, self._news)
            if drop is None:
                return
            packet = drop
        self.drops[packet] += 1

    def _deliver(self, packet: ip.Packet, now: float, news: News) -> ip.Drop | None:
        if packet.protocol == ip.TCP:
            found = lone(packet)
            if isinstance(found, ip.Drop):
                return found
            self._arrivals.add(*found)
        elif packet.protocol == ip.UDP:
            return self._datagram(packet, now, news)
        elif packet.protocol == _icmp_protocol(packet.source):
            return self._icmp(packet, now, news)
        else:
            return ip.Drop.UNKNOWN_PROTOCOL
        return None

    def _segment(self, key: bytes, segment: Segment, now: float, news: News) -> None:
        connection = self._connections.get(key)
        if connection is not None and segment.flags & SYN and connection.is_outlived_by(segment):
            self._forget(connection)
            connection = None
        if connection is None:
            self._stranger(key, segment, now)
            return
        was_opening = connection.state is State.SYN_RECEIVED
        if not connection.arrive(segment, now):
            self.drops[ip.Drop.NOT_IN_WINDOW] += 1
        if was_opening and connection.state is not State.SYN_RECEIVED:
            self._opened(connection, news)
        news.connections[connection] = None
        self._attend(connection)

    def _opened(self, connection: Connection, news: News) -> None:
        listener = self._listener_of.get(connection)
        if listener is None:
            return
        listener.half_open.pop(connection, None)
        if connection.state is State.CLOSED:
            return
        listener.waiting.append(connection)
        news.listeners[listener] = None

    def _stranger(self, key: bytes, segment: Segment, now: float) -> None:
        """A segment of no connection there is (RFC 9293, 3.10.7.1 and 3.10.7.2; tcp_input.c, TCP_LISTEN)."""
        names = Names.of(key)
        if segment.flags & RST:
            return
        port = names.local_port
        listener = self._listeners.get((names.local, port)) or self._listeners.get((None, port))
        if listener is not None and segment.flags & (SYN | ACK | FIN) == SYN:
            self._open(listener, names, segment, now)
            return
        self.drops[ip.Drop.CLOSED_PORT] += 1
        if listener is None or segment.flags & ACK:
            self._answer(finished(reset(names, segment), b""))

    def _open(self, listener: Listener, names: Names, segment: Segment, now: float) -> None:
        if len(listener.waiting) >= listener.backlog:
            self.drops[ip.Drop.BACKLOG_FULL] += 1
            return
        if len(listener.half_open) >= listener.backlog:  # in a flood, whoever answers does so before his turn comes
            self.drops[ip.Drop.BACKLOG_FULL] += 1
            oldest = next(iter(listener.half_open))
            del listener.half_open[oldest]
            self._forget(oldest)
        connection = self._make(names, State.SYN_RECEIVED, now, None)
        connection.learn(segment, Options.parse(segment.options), now)
        listener.half_open[connection] = None
        self._listener_of[connection] = listener
        self._ready[connection] = None

    def _datagram(self, packet: ip.Packet, now: float, news: News) -> ip.Drop | None:
        datagram = udp.parse(packet)
        if isinstance(datagram, ip.Drop):
            return datagram
        port = datagram.destination[1]
        socket = self._sockets.get((packet.destination, port)) or self._sockets.get((None, port))
        if socket is None or (socket.peer is not None and socket.peer != datagram.source):
            if self._errors.allow(packet.source, now):
                message = icmp.port_unreachable(packet.destination, packet.source, packet.whole)
                head = ip.header(packet.destination, packet.source, _icmp_protocol(packet.source), len(message))
                self._answer(head + message)
            else:
                self.drops[ip.Drop.RATE_LIMITED] += 1
            return ip.Drop.CLOSED_PORT
        if not socket.arrive(datagram):
            return ip.Drop.QUEUE_FULL
        news.sockets[socket] = None
        return None

    def _icmp(self, packet: ip.Packet, now: float, news: News) -> ip.Drop | None:
        message = icmp.parse(packet)
        if isinstance(message, ip.Drop):
            return message
        if isinstance(message, icmp.Unreachable):
            self._unreachable(message, now, news)
        elif isinstance(message, icmp.Echo) and message.is_reply:
            news.echoes.append(message)
        elif isinstance(message, icmp.Echo):
            local, remote = packet.destination, packet.source
            reply = icmp.echo(local, remote, message.identifier, message.sequence, message.payload, is_reply=True)
            for answer in ip.packets(
                local, remote, packet.protocol, reply, self._paths.longest(remote, now), self._identification
            ):
                self._answer(answer)
        return None

    def _unreachable(self, told: icmp.Unreachable, now: float, news: News) -> None:
        """Believe an error only about what we are sending (RFC 5927): anybody can forge one."""
        if told.protocol == ip.TCP:
            connection = self._connections.get(told.destination + told.source + told.ports[2:] + told.ports[:2])
            if connection is None:
                return
            if told.mtu is not None:
                if connection.shorten(told.mtu, told.number, now):
                    self._paths.learn(told.destination, told.mtu, now)
            elif connection.unreachable(told.number, failure(told.error)):
                news.connections[connection] = None
            self._attend(connection)
        elif told.protocol == ip.UDP:
            port = int.from_bytes(told.ports[:2])
            socket = self._sockets.get((told.source, port)) or self._sockets.get((None, port))
            if socket is None:
                return
            if told.mtu is not None:
                self._paths.learn(told.destination, told.mtu, now)
            elif socket.peer == (told.destination, int.from_bytes(told.ports[2:])):  # as Linux: of connected ones only
                socket.error = failure(told.error)
                news.sockets[socket] = None
        elif told.mtu is None:
            news.unanswered.append(told)

    # To the tunnel.

    @property
    def has_more(self) -> bool:
        """Whether `transmit` may have something."""
        return bool(self._ready or self._queue or self._long or self._batches.kinds)

    def transmit(self, now: float) -> Burst | None:
        """The next burst: segments of one connection, or lone packets of any that go to one host. None: there is none.

        It lies in a buffer that the next call overwrites. Connections take turns.
        """
        if not self._batches.kinds and self._long is None and (alone := self._collect(now)) is not None:
            return self._slots.alone(alone)
        if self._batches.kinds:
            return self._slots.lone(self._batches.pop())
        if self._long is None:
            return None
        long, self._long = self._long, None
        return self._slots.segments(long.start, long.payload, long.size)

    def _collect(self, now: float) -> Packet | None:
        """Take what is to leave, until one packet might overtake another of its connection or socket.

        If one packet is all there is, it is returned: it needs no sorting.
        """
        room = self._slots.most
        while self._queue and room and self._batches.would_keep_order(self._queue[0]):
            self._answers = max(0, self._answers - 1)
            self._batches.add(self._queue.popleft())
            room -= 1
        if self._batches.kinds:
            return None
        while self._ready and room:
            connection = next(iter(self._ready))
            del self._ready[connection]
            departure = connection.depart(self._slots.most, now)
            has_more = departure is not None and connection.may_send
            if has_more:
                self._ready[connection] = None  # behind the others
            else:
                self._settle(connection)
            if departure is None:
                continue
            if len(departure.payload) > departure.size:
                self._long = departure
                return None
            packet = finished(departure.start, departure.payload)
            if not self._ready and not self._batches.kinds:
                return packet
            self._batches.add(packet)
            if has_more:
                return None
            room -= 1
        return None

    # Time.

    def next_timeout(self) -> float:
        """When to call `handle_timeout`, seconds; inf: never. Ask when `transmit` has nothing more."""
        return self._deadlines.next()

    def handle_timeout(self, now: float) -> News:
        """Do what is due."""
        news = News()
        while (connection := self._deadlines.pop(now)) is not None:
            connection.handle_timeout(now)
            news.connections[connection] = None
            self._ready[connection] = None
        return news

    def _attend(self, connection: Connection) -> None:
        """Something has become of it: have `transmit` see what is to leave. What is over is forgotten at once."""
        if connection.may_send:
            self._ready[connection] = None
        else:
            self._settle(connection)

    def _settle(self, connection: Connection) -> None:
        """Nothing is to leave: note when a connection wants to be called, and forget one that is over."""
        if connection.state is State.TIME_WAIT and connection not in self._time_wait:
            self._time_wait[connection] = None
            if len(self._time_wait) > MAX_TIME_WAIT:
                self._forget(next(iter(self._time_wait)))
        if connection.state is State.CLOSED and not connection.has_reset:
            self._forget(connection)
        else:
            self._deadlines.note(connection)

    def _forget(self, connection: Connection) -> None:
        connection.receiver.finish()
        if self._connections.get(connection.key) is connection:
            del self._connections[connection.key]
        self._ready.pop(connection, None)
        self._time_wait.pop(connection, None)
        listener = self._listener_of.pop(connection, None)
        if listener is not None:
            listener.half_open.pop(connection, None)
        self._deadlines.forget(connection)


def _icmp_protocol(address: bytes) -> int:
    return ip.ICMPV6 if len(address) == 16 else ip.ICMP
