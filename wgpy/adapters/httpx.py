"""httpx through a tunnel: `httpx.AsyncClient(transport=TunnelTransport(tunnel))`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from wgpy.rootless.tunnel import RootlessTunnel


class TunnelTransport(httpx.AsyncBaseTransport):
    """An httpx transport through a tunnel, with httpx's connection pooling; the tunnel's DNS resolves host names.

    `verify` and `http2` are those of httpx.AsyncClient. Requests raise httpx's own errors: ConnectError if a name does
    not resolve.
    """

    def __init__(self, tunnel: RootlessTunnel, *, verify: ssl.SSLContext | bool = True, http2: bool = False) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(verify), http2=http2, network_backend=_Backend(tunnel)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, as httpx's own transport does."""
        url = request.url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        asked = httpcore.Request(
            request.method, target, headers=request.headers.raw, content=request.stream, extensions=request.extensions
        )
        with _errors_of_httpx():
            answer = await self._pool.handle_async_request(asked)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        """Close its connections."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextmanager
def _errors_of_httpx() -> Any:
    """Raise httpcore's errors as httpx's, which have the same names."""
    try:
        yield
    except Exception as error:
        kind = getattr(httpx, type(error).__name__, None)
        if kind is None or not isinstance(kind, type) or not type(error).__module__.startswith("httpcore"):
            raise
        raise kind(str(error)) from error


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, tunnel: RootlessTunnel) -> None:
        self._tunnel = tunnel

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _errors_of_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                return _Stream(*await self._tunnel.open_connection(host, port))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _errors_of_httpcore(httpcore.ReadTimeout, httpcore.ReadError):
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _errors_of_httpcore(httpcore.WriteTimeout, httpcore.WriteError):
            async with asyncio.timeout(timeout):
                self._writer.write(buffer)
                await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        with _errors_of_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._writer.get_extra_info(info)
        known: dict[str, Callable[[], Any]] = {
            "client_addr": lambda: self._writer.get_extra_info("sockname"),
            "server_addr": lambda: self._writer.get_extra_info("peername"),
            "socket": lambda: self._writer.get_extra_info("socket"),
            "is_readable": self._reader.at_eof,
        }
        return known[info]() if info in known else None


@contextmanager
def _errors_of_httpcore(late: type[Exception], failed: type[Exception]) -> Any:
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:  # including ssl.SSLError
        raise failed(str(error)) from error
