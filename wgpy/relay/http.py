"""An HTTP proxy (RFC 9110, 9112): CONNECT, and requests for http:// URLs, one request per connection.

h11 parses and rebuilds both sides of a plain request, so the server receives exactly the one message that was parsed
here, and nothing that the two ends could split differently (request smuggling). After CONNECT, bytes pass unchanged.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import h11

from wgpy.config.services import Place, Proxy, parse_place
from wgpy.errors import ConfigError, WgpyError
from wgpy.net.admission import Admission, Admitted
from wgpy.net.streams import Server, Stream, closed, end, reset, send
from wgpy.relay.networks import HostNetwork, Network, connect, failure, join, log, serve

HEAD_TIMEOUT: Final = 20.0  # seconds to wait for a request's head
LINGER: Final = 5.0  # seconds a client that is still sending has to read our answer
_MAX_HEAD: Final = 1 << 16  # bytes
_CHUNK: Final = 1 << 16  # bytes per read
_BARE_NEWLINE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_HOP_BY_HOP: Final = {  # RFC 9110, 7.6.1
    b"connection", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"keep-alive", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip

Headers = list[tuple[bytes, bytes]]


class _Refused(Exception):
    """The request is refused: a status, and one line of text that explains it."""


class _ClientGone(ConnectionError):
    """The client has disconnected, so there is no one to answer."""

    def __str__(self) -> str:
        return "the client disconnected"


async def serve_http(proxy: Proxy, network: Network, admission: Admission) -> Server:
    """Run `proxy` on this host, connecting its clients to `network`. Raises OSError if it cannot listen."""
    credentials = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()) if proxy.username else b""

    async def serving(stream: Stream, admitted: Admitted) -> None:
        client = _Client(stream)
        try:
            request = await client.read_request()
            if request is None:
                return
            _authorize(request, credentials)
            if request.method == b"CONNECT":
                other = await _reach(network, _authority(request.target))
                await _tunnel(stream, other, client.rest(), admitted)
            else:
                place, forwarded = _forwarded(request)
                await client.exchange(forwarded, await _reach(network, place), admitted)
                await _linger(stream)
        except _Refused as refused:
            await send(stream[1], _answer(*refused.args))
            await _linger(stream)

    return await serve(HostNetwork(), proxy.listen.host or None, proxy.listen.port, serving, admission)


async def _reach(network: Network, place: Place) -> Stream:
    log.debug("%s", place)
    try:
        return await connect(network, place.host, place.port)
    except TimeoutError:
        raise _Refused(504, f"{place}: timed out") from None
    except (OSError, WgpyError) as error:
        raise _Refused(502, failure(place, error)) from error


async def _linger(stream: Stream) -> None:
    """End the connection so that the client can read the answer: unread data would reset it (RFC 9112, 9.6)."""
    reader, writer = stream
    end(writer)
    with suppress(OSError):  # a timeout, too
        async with asyncio.timeout(LINGER):
            while await reader.read(_CHUNK):
                pass


async def _tunnel(stream: Stream, other: Stream, rest: bytes, admitted: Admitted) -> None:
    try:
        await send(stream[1], b"HTTP/1.1 200 Connection established\r\n\r\n")
        if rest:
            await send(other[1], rest)
    except BaseException:
        other[1].close()
        raise
    await join(stream, other, admitted)


class _Client:
    """The client's side of one request."""

    def __init__(self, stream: Stream) -> None:
        self._reader, self._writer = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._is_answered = False  # true once part of the response was sent

    async def read_request(self) -> h11.Request | None:
        """Read the request's head; None if the client disconnects or sends nothing in time. Raises _Refused."""
        head = b""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                while (event := self._http.next_event()) is h11.NEED_DATA:
                    data = await self._reader.read(_CHUNK)
                    head += data
                    self._http.receive_data(data)
        except TimeoutError:
            if not head:
                return None
            raise _Refused(408, "the request took too long to arrive") from None
        except h11.RemoteProtocolError as error:
            raise _Refused(error.error_status_hint, str(error)) from None
        if not isinstance(event, h11.Request):
            return None
        if not event.http_version.startswith(b"1."):
            raise _Refused(505, "this is an HTTP/1.1 proxy")
        if _BARE_NEWLINE.search(head.removesuffix(self.rest())):
            raise _Refused(400, "lines must end in CR LF; a lone CR or LF is not allowed")
        return event

    def rest(self) -> bytes:
        """The bytes received after the head."""
        return self._http.trailing_data[0]

    async def exchange(self, request: h11.Request, server: Stream, admitted: Admitted) -> None:
        """Send the request to the server and its response to the client, of whatever length."""
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        uploading = asyncio.create_task(self._upload(http, request, server[1], admitted))
        answering = asyncio.create_task(self._answer_with(http, server, admitted))
        try:
            await asyncio.wait((uploading, answering), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                uploading.result()  # raises: it only ends when the client has gone, or by an error
            await answering
        except _Refused:
            if not self._is_answered:
                raise
            reset(self._writer)  # or a truncated response would look complete
            raise _ClientGone from None
        finally:
            for task in (uploading, answering):
                task.cancel()
            server[1].transport.abort()  # nothing more is expected from the server
            await asyncio.gather(uploading, answering, return_exceptions=True)

    async def _upload(
        self, http: h11.Connection, request: h11.Request, writer: asyncio.StreamWriter, admitted: Admitted
    ) -> None:
        """Send the request, then wait for the client to disconnect. Always raises _ClientGone or _Refused."""
        event: h11.Event = request
        try:
            await send(writer, http.send(request) or b"")
            while not isinstance(event, h11.EndOfMessage):
                event = await _next(self._http, self._reader)
                admitted.touch()
                await send(writer, http.send(_without_trailers(event)) or b"")
        except h11.RemoteProtocolError as error:
            writer.transport.abort()
            raise _Refused(error.error_status_hint, str(error)) from None
        except OSError as error:
            # Either the server stopped reading, perhaps with a response that says why, or the client has gone.
            log.debug("a request was interrupted: %s", error)
        with suppress(OSError):
            while await self._reader.read(_CHUNK):
                pass
            await closed(self._writer)
        raise _ClientGone

    async def _answer_with(self, http: h11.Connection, server: Stream, admitted: Admitted) -> None:
        """Send the response to the client. Raises _Refused if it is missing or incomplete, and _ClientGone."""
        event: h11.Event | None = None
        while not isinstance(event, h11.EndOfMessage):
            try:
                event = await _next(http, server[0])
                if isinstance(event, h11.InformationalResponse) and self._http.their_http_version == b"1.0":
                    continue  # HTTP/1.0 has no 1xx responses (RFC 9110, 15.2)
                data = self._http.send(self._to_client(event)) or b""
            except (h11.ProtocolError, OSError) as error:
                raise _Refused(502, f"the server's response is invalid or incomplete: {error}") from None
            admitted.touch()
            self._is_answered |= isinstance(event, h11.Response)
            try:
                await send(self._writer, data)
            except OSError:
                raise _ClientGone from None

    def _to_client(self, event: h11.Event) -> h11.Event:
        if isinstance(event, h11.InformationalResponse):
            headers = _end_to_end(event)
            return h11.InformationalResponse(status_code=event.status_code, headers=headers, reason=event.reason)
        if isinstance(event, h11.Response):
            headers = [*_end_to_end(event), (b"Connection", b"close")]
            return h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        return _without_trailers(event)


def _without_trailers(event: h11.Event) -> h11.Event:
    """Drop trailers, as a proxy may (RFC 9110, 6.5.1); passing them on would mean filtering them as headers are."""
    return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event


async def _next(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    """Read the next part of a message. Raises OSError, and h11.RemoteProtocolError also if the connection ends."""
    await asyncio.sleep(0)  # let others run: one read may hold thousands of tiny chunks
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(_CHUNK))
    if not isinstance(event, h11.Event) or isinstance(event, h11.ConnectionClosed):
        raise h11.RemoteProtocolError("the connection ended too early")
    return event


def _authorize(request: h11.Request, credentials: bytes) -> None:
    """Raises _Refused unless the request carries the proxy's user name and password."""
    if not credentials:
        return
    given = [value for name, value in request.headers if name == b"proxy-authorization"]
    scheme, _, told = (given[0] if len(given) == 1 else b"").partition(b" ")
    if not hmac.compare_digest(told.strip(), credentials) or scheme.lower() != b"basic":
        raise _Refused(407, "a user name and a password are required")


def _authority(target: bytes) -> Place:
    try:
        place = parse_place(target.decode("ascii"))
    except ConfigError as error:
        raise _Refused(400, str(error)) from error
    if not place.host:
        raise _Refused(400, "expected HOST:PORT to connect to")
    return place


def _forwarded(request: h11.Request) -> tuple[Place, h11.Request]:
    """The server a request is for, and the request to send there (RFC 9112, 3.2). Raises _Refused."""
    try:
        url = urlsplit(request.target.decode("ascii"))
        if url.scheme != "http" or not url.hostname:
            raise _Refused(400, "expected CONNECT, or a request for an http:// URL")
        place = Place(url.hostname, url.port or 80)
    except ValueError as error:
        raise _Refused(400, f"invalid URL: {error}") from error
    lengths = {name for name, _ in request.headers} & {b"content-length", b"transfer-encoding"}
    if len(lengths) == 2 or (b"transfer-encoding" in lengths and request.http_version < b"1.1"):
        # Servers differ in which of the two they obey, which lets requests be smuggled (RFC 9112, 6.1).
        raise _Refused(400, "Content-Length and Transfer-Encoding cannot be used together")
    path = url.path + (f"?{url.query}" if url.query else "")
    if not path.startswith("/"):
        path = "*" if request.method == b"OPTIONS" and not path else f"/{path}"
    headers = [(name, value) for name, value in _end_to_end(request) if name.lower() != b"host"]
    headers = [(b"Host", url.netloc.rpartition("@")[2].encode()), *headers, (b"Connection", b"close")]
    if request.http_version < b"1.1":
        headers = [(name, value) for name, value in headers if name.lower() != b"expect"]  # RFC 9110, 10.1.1
    return place, h11.Request(method=request.method, target=path, headers=headers)


def _end_to_end(event: h11.Request | h11.Response | h11.InformationalResponse) -> Headers:
    """The headers to pass on: without hop-by-hop ones, but always with the body's length."""
    named = {
        word.strip().lower()
        for name, value in event.headers
        if name in (b"connection", b"proxy-connection")
        for word in value.split(b",")
    }
    dropped = _HOP_BY_HOP | named | {b"content-length"}
    kept = [(raw, value) for raw, value in event.headers.raw_items() if raw.lower() not in dropped]
    fields = dict(event.headers)
    if b"transfer-encoding" in fields:  # h11 supports only chunked
        return [*kept, (b"Transfer-Encoding", b"chunked")]
    if b"content-length" in fields:
        return [*kept, (b"Content-Length", fields[b"content-length"])]
    return kept


def _answer(status: int, text: str) -> bytes:
    body = f"wgpy: {text}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
    ]
    if status == 407:
        lines.append('Proxy-Authenticate: Basic realm="wgpy"')
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
