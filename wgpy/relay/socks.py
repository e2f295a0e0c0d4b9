"""A SOCKS5 proxy: RFC 1928 with CONNECT and UDP ASSOCIATE, RFC 1929 for user names and passwords.

The tunnel's own name servers resolve the names that clients ask for.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from wgpy.config.services import Place, Proxy
from wgpy.errors import WgpyError
from wgpy.net.admission import Admission, Admitted, client_of
from wgpy.net.streams import Server, Stream, send
from wgpy.relay.networks import HostNetwork, Network, connect, failure, join, log, send_datagram, serve

GREETING_TIMEOUT: Final = 20.0  # seconds a client has to make its request
_VERSION: Final = 5
_NO_AUTHENTICATION, _PASSWORD, _NO_METHOD = 0, 2, 0xFF
_CONNECT, _ASSOCIATE = 1, 3
_IPV4, _NAME, _IPV6 = 1, 3, 4
_DONE, _FAILED, _NO_NETWORK, _NO_HOST, _REFUSED, _TIMED_OUT, _NO_COMMAND = 0, 1, 3, 4, 5, 6, 7
_REPLIES: Final = {
    errno.ECONNREFUSED: _REFUSED,
    errno.ENETUNREACH: _NO_NETWORK,
    errno.EHOSTUNREACH: _NO_HOST,
    errno.ETIMEDOUT: _TIMED_OUT,
}
_MAX_NAMES: Final = 256  # looked-up names that an association remembers
_MAX_WAITING: Final = 64  # datagrams of one sender that wait for a name or a socket
_SENDER_COST: Final = 4  # file descriptors: a socket for each IP version, and two while a name is looked up


class _Refused(Exception):
    """A client's request cannot be met: the code to reply with."""


async def serve_socks(proxy: Proxy, network: Network, admission: Admission) -> Server:
    """Run `proxy` on this host, connecting its clients to `network`. Raises OSError if it cannot listen."""

    async def serving(stream: Stream, admitted: Admitted) -> None:
        client = _Client(proxy, network, stream, admitted)
        try:
            async with asyncio.timeout(GREETING_TIMEOUT):
                if not await client.authenticate():
                    return
                command, host, port = await client.request()
            await (client.connect(host, port) if command == _CONNECT else client.associate(port, admission))
        except _Refused as refused:
            await send(stream[1], _reply(refused.args[0]))

    return await serve(HostNetwork(), proxy.listen.host or None, proxy.listen.port, serving, admission)


class _Client:
    def __init__(self, proxy: Proxy, network: Network, stream: Stream, admitted: Admitted) -> None:
        self._proxy = proxy
        self._network = network
        self._admitted = admitted
        self._stream = self._reader, self._writer = stream

    async def authenticate(self) -> bool:
        version, count = await self._reader.readexactly(2)
        methods = await self._reader.readexactly(count)
        wanted = _PASSWORD if self._proxy.username else _NO_AUTHENTICATION
        if version != _VERSION or wanted not in methods:
            await send(self._writer, bytes((_VERSION, _NO_METHOD)))
            return False
        await send(self._writer, bytes((_VERSION, wanted)))
        if wanted == _NO_AUTHENTICATION:
            return True
        await self._reader.readexactly(1)
        user = await self._reader.readexactly((await self._reader.readexactly(1))[0])
        password = await self._reader.readexactly((await self._reader.readexactly(1))[0])
        known = hmac.compare_digest(user, self._proxy.username.encode())
        known &= hmac.compare_digest(password, self._proxy.password.encode())
        await send(self._writer, bytes((1, not known)))
        return known

    async def request(self) -> tuple[int, str, int]:
        """Read the command, and the host and port it names."""
        version, command, _, kind = await self._reader.readexactly(4)
        if version != _VERSION:
            raise _Refused(_FAILED)
        if kind == _NAME:
            host = (await self._reader.readexactly((await self._reader.readexactly(1))[0])).decode("latin-1")
        elif kind in (_IPV4, _IPV6):
            host = str(ip_address(await self._reader.readexactly(4 if kind == _IPV4 else 16)))
        else:
            raise _Refused(8)  # address type not supported
        port = int.from_bytes(await self._reader.readexactly(2))
        if command not in (_CONNECT, _ASSOCIATE):
            raise _Refused(_NO_COMMAND)
        return command, host, port

    async def connect(self, host: str, port: int) -> None:
        try:
            other = await connect(self._network, host, port)
        except (OSError, WgpyError) as error:
            log.info("%s", failure(Place(host, port), error))
            raise _Refused(_reply_code(error)) from error
        bound = other[1].get_extra_info("sockname")
        try:
            await send(self._writer, _reply(_DONE, bound[0], bound[1]))
        except BaseException:
            other[1].close()
            raise
        await join(self._stream, other, self._admitted)

    async def associate(self, port: int, admission: Admission) -> None:
        """Relay datagrams for as long as the connection lasts."""
        own, client = self._writer.get_extra_info("sockname")[0], self._writer.get_extra_info("peername")[0]
        loop = asyncio.get_running_loop()
        make = partial(_Association, self._network, client, port, admission, self._admitted)
        transport, association = await loop.create_datagram_endpoint(make, local_addr=(own, 0))
        try:
            bound = transport.get_extra_info("sockname")
            await send(self._writer, _reply(_DONE, bound[0], bound[1]))
            while await self._reader.read(1024):
                pass
        finally:
            transport.close()
            association.close()


class _Association(asyncio.DatagramProtocol):
    """Relays one client's datagrams to anywhere in the network, and the replies back.

    If the client did not name its port, datagrams from any port of its host are relayed. Each sender has its own
    sockets and gets only the replies to its own datagrams.
    """

    def __init__(self, network: Network, client: str, port: int, admission: Admission, connection: Admitted) -> None:
        self._network = network
        self._client = client
        self._port = port
        self._admission = admission
        self._connection = connection
        self._names = _Names(network)
        self._senders: dict[Any, _Sender] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        if sender[0] != self._client or (self._port and sender[1] != self._port):
            return
        if (parsed := _parse(data)) is None:
            return
        self._connection.touch()
        known = self._senders.get(sender)
        if known is None:

            def answer(data: bytes, origin: Any) -> None:
                send_datagram(self._transport, bytes(3) + _encode(origin[0], origin[1]) + data, sender)

            def close() -> None:
                del self._senders[sender]
                new.close()

            new = known = self._senders[sender] = _Sender(self._network, self._names, answer)
            known.admitted = self._admission.admit(client_of(sender), _SENDER_COST, close)
        else:
            known.admitted.touch()
        known.send(*parsed)

    def close(self) -> None:
        for sender in self._senders.values():
            sender.admitted.release()
            sender.close()
        self._senders.clear()


class _Names:
    """The addresses of names in an association's datagrams; each name is looked up once."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._found: dict[str, str] = {}

    def known(self, host: str) -> str | None:
        """The host's address if it is numeric or was looked up before, else None."""
        with suppress(ValueError):
            return str(ip_address(host))
        return self._found.get(host)

    async def find(self, host: str) -> str:
        """Look up the address of a name, and remember it. Raises OSError and WgpyError."""
        infos = await self._network.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
        if len(self._found) >= _MAX_NAMES:
            self._found.clear()
        self._found[host] = address = str(infos[0][4][0])
        return address


class _Sender:
    """One sender's sockets in the network: one for each IP version, opened when first needed."""

    admitted: Admitted

    def __init__(self, network: Network, names: _Names, answer: Callable[[bytes, Any], None]) -> None:
        self._network = network
        self._names = names
        self._answer = answer
        self._sockets: dict[int, asyncio.DatagramTransport] = {}
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, host: str, port: int, data: bytes) -> None:
        """Send now if the address is known and the socket open; else queue it, unless too many are waiting."""
        address = self._names.known(host)
        transport = self._sockets.get(ip_address(address).version) if address else None
        if address and transport:
            send_datagram(transport, data, (address, port))
        elif len(self._tasks) < _MAX_WAITING:
            task = asyncio.create_task(self._send_later(host, port, data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_later(self, host: str, port: int, data: bytes) -> None:
        try:
            async with self._opening:  # one lookup, and one new socket, at a time
                address = self._names.known(host) or await self._names.find(host)
                version = ip_address(address).version
                if version not in self._sockets:
                    self._sockets[version] = await self._open(version)
            send_datagram(self._sockets[version], data, (address, port))
        except (OSError, WgpyError, ValueError) as error:
            log.info("a datagram was dropped: %s", failure(Place(host, port), error))
            for task in self._tasks - {asyncio.current_task()}:
                task.cancel()  # or each of them might wait as long for the same name

    async def _open(self, version: int) -> asyncio.DatagramTransport:
        wildcard = "0.0.0.0" if version == 4 else "::"
        make = partial(_Answers, self._received)
        transport, _ = await self._network.create_datagram_endpoint(make, local_addr=(wildcard, 0))
        return transport

    def _received(self, data: bytes, origin: Any) -> None:
        self.admitted.touch()
        self._answer(data, origin)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for transport in self._sockets.values():
            transport.close()


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[bytes, Any], None]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, sender: Any) -> None:
        self._answer(data, sender)


def _parse(data: bytes) -> tuple[str, int, bytes] | None:
    """Host, port and payload of a datagram (RFC 1928, 7); None if it is malformed, or a fragment (optional there)."""
    if len(data) < 10 or data[2] != 0:
        return None
    kind = data[3]
    size = {_IPV4: 4, _IPV6: 16, _NAME: data[4]}.get(kind, 0)
    start = 5 if kind == _NAME else 4
    end = start + size
    if not size or len(data) < end + 2:
        return None
    host = data[start:end].decode("latin-1") if kind == _NAME else str(ip_address(data[start:end]))
    return host, int.from_bytes(data[end : end + 2]), data[end + 2 :]


def _encode(host: str, port: int) -> bytes:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed + struct.pack("!H", port)


def _reply(code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    return bytes((_VERSION, code, 0)) + _encode(host, port)


def _reply_code(error: Exception) -> int:
    if isinstance(error, socket.gaierror | TimeoutError):
        return _NO_HOST
    return _REPLIES.get(error.errno or 0, _FAILED) if isinstance(error, OSError) else _FAILED
