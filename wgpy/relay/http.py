"""An HTTP proxy (RFC 9110, 9112): CONNECT, and requests for http:// addresses, one for each connection."""

from __future__ import annotations

import asyncio
import base64
import hmac
from typing import Final
from urllib.parse import urlsplit

from wgpy.config.services import Place, Proxy, parse_place
from wgpy.errors import ConfigError, WgpyError
from wgpy.relay.networks import HostNetwork, Network, connect, join, log, reason, serve

HEAD_TIMEOUT: Final = 20.0  # seconds for a request's head
_HOP_BY_HOP: Final = {b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive"}


class _Refused(Exception):
    """A request that is not carried out: status, reason, and a line for a person."""


async def serve_http(proxy: Proxy, network: Network) -> asyncio.Server:
    """Serve on this host what `proxy` says, leading into `network`. Raises OSError if it cannot listen."""
    expected = b"Basic " + base64.b64encode(f"{proxy.username}:{proxy.password}".encode()) if proxy.username else b""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                async with asyncio.timeout(HEAD_TIMEOUT):
                    head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                raise _Refused(431, "Request Header Fields Too Large", "the head is too long") from None
            place, request = _read(head, expected)
            try:
                other = await connect(network, place.host, place.port)
            except TimeoutError:
                raise _Refused(504, "Gateway Timeout", f"{place}: no answer in time") from None
            except (OSError, WgpyError) as error:
                raise _Refused(502, "Bad Gateway", f"{place}: {reason(error)}") from error
        except _Refused as refused:
            writer.write(_answer(*refused.args))
            await writer.drain()
            return
        if request:
            other[1].write(request)
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join((reader, writer), other)

    return await serve(HostNetwork(), proxy.listen.host or None, proxy.listen.port, connected)


def _read(head: bytes, expected: bytes) -> tuple[Place, bytes]:
    """Where a request goes, and what is to be said there: nothing for CONNECT."""
    first, *lines = head[:-4].split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        raise _Refused(400, "Bad Request", "this is an HTTP/1.1 proxy")
    headers = [(line.partition(b":")[0].strip().lower(), line) for line in lines]
    if expected:
        given = next((line.partition(b":")[2].strip() for name, line in headers if name == b"proxy-authorization"), b"")
        if not hmac.compare_digest(given, expected):
            raise _Refused(407, "Proxy Authentication Required", "a name and a password are needed")
    method, target, version = words
    try:
        if method == b"CONNECT":
            place = parse_place(target.decode("ascii"))
            if not place.host:
                raise ConfigError("no host")
            return place, b""
        url = urlsplit(target.decode("ascii"))
        if url.scheme != "http" or not url.hostname:
            raise _Refused(400, "Bad Request", "expected CONNECT, or a request for an http:// address")
        place = Place(url.hostname, url.port or 80)
    except (ConfigError, ValueError) as error:
        raise _Refused(400, "Bad Request", f"no such address: {error}") from error
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    kept = [line for name, line in headers if name not in _HOP_BY_HOP]
    request = [b" ".join((method, path.encode(), version)), *kept, b"Connection: close", b"", b""]
    log.debug("%s", place)
    return place, b"\r\n".join(request)


def _answer(status: int, reason: str, text: str) -> bytes:
    body = f"wgpy: {text}\n".encode()
    lines = [f"HTTP/1.1 {status} {reason}", "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
    if status == 407:
        lines.append('Proxy-Authenticate: Basic realm="wgpy"')
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
