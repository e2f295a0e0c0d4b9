"""Prometheus metrics of one interface, with the metric names of the common WireGuard exporter.

prometheus-client formats the text. Its own HTTP server is not used, because it limits neither the number of connections
nor how long they last.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, Final

from wgpy.device.status import DeviceStatus
from wgpy.errors import ControlError
from wgpy.net.admission import BACKLOG, Admission, Admitted
from wgpy.net.streams import Stream, attended, close, listening_reason, send

log: Final = logging.getLogger("wgpy")

MAX_CONNECTIONS: Final = 8
TIMEOUT: Final = 10.0  # seconds a connection may last
_CHUNK: Final = 1 << 12  # bytes per read


class MetricsServer:
    """Serves http://HOST:PORT/metrics from the event loop, for a class that `collect`s; a thread formats the text.

    `address` is HOST:PORT, or [IPV6]:PORT. Raises ControlError if it is neither.
    """

    def __init__(self, interface: str, address: str) -> None:
        self._interface = interface
        self._host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 0xFFFF or not self._host:
            raise ControlError(f"--metrics {address}: expected HOST:PORT, such as 127.0.0.1:9586")
        self._port = int(port)
        self._admission = Admission(MAX_CONNECTIONS, f"({interface}) --metrics has {MAX_CONNECTIONS} connections")
        self._writing = asyncio.Lock()  # formats one text at a time
        self._server: asyncio.Server | None = None

    async def collect(self) -> list[Any]:
        """The families of metrics, as `prometheus_client.core` has them."""
        raise NotImplementedError

    def page(self, path: bytes) -> tuple[int, bytes] | None:
        """The status and the text at a path that is not the metrics'; None for the metrics."""
        return None

    async def start(self) -> None:
        """Listen. Raises ControlError if the address cannot be bound, or prometheus-client is not installed."""
        try:
            import prometheus_client
            import prometheus_client.core
        except ImportError:
            remedy = f"{sys.executable} -m pip install prometheus-client"
            raise ControlError(f"--metrics needs prometheus-client: {remedy}") from None
        import h11

        self._prometheus: ModuleType = prometheus_client
        self._h11: ModuleType = h11
        connected = attended(self._serve, self._admission, 1, log)
        try:
            host = self._host.strip("[]")
            self._server = await asyncio.start_server(connected, host, self._port, backlog=BACKLOG)
        except OSError as error:
            raise ControlError(f"--metrics {self._host}:{self._port}: {listening_reason(error)}") from error

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, stream: Stream, admitted: Admitted) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._answer(stream, admitted)
                await close(stream[1])
        except self._h11.ProtocolError as error:
            log.debug("(%s) --metrics: %s", self._interface, error)

    async def _answer(self, stream: Stream, admitted: Admitted) -> None:
        reader, writer = stream
        h11 = self._h11
        http = h11.Connection(h11.SERVER)
        while (request := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await reader.read(_CHUNK))
        if not isinstance(request, h11.Request):
            return
        admitted.touch()
        asked = {name: value.decode("latin-1") for name, value in request.headers}
        headers = [("Connection", "close")]
        page = self.page(request.target.partition(b"?")[0])
        if request.method not in (b"GET", b"HEAD"):
            status, text = 405, b"use GET or HEAD\n"
            headers.append(("Allow", "GET, HEAD"))
        elif page:
            status, text = page
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        else:
            status = 200
            encode, kind = self._prometheus.exposition.choose_encoder(asked.get(b"accept", ""))
            headers.append(("Content-Type", kind))
            async with self._writing:
                text = await asyncio.to_thread(encode, _Collected(await self.collect()))
                if "gzip" in asked.get(b"accept-encoding", ""):
                    text = await asyncio.to_thread(gzip.compress, text, 1)
                    headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(text))))
        await send(writer, http.send(h11.Response(status_code=status, headers=headers)))
        if request.method != b"HEAD":
            await send(writer, text)


class Metrics(MetricsServer):
    """The metrics of an interface: its peers and what was dropped."""

    def __init__(self, interface: str, address: str, status: Callable[[], Awaitable[DeviceStatus]]) -> None:
        super().__init__(interface, address)
        self._status = status

    async def collect(self) -> list[Any]:
        return self._families(await self._status())

    def _families(self, status: DeviceStatus) -> list[Any]:
        counter, gauge = self._prometheus.core.CounterMetricFamily, self._prometheus.core.GaugeMetricFamily
        labels = ["interface", "public_key", "allowed_ips", "friendly_name"]
        sent = counter("wireguard_sent_bytes", "Bytes sent to the peer", labels=labels)
        received = counter("wireguard_received_bytes", "Bytes received from the peer", labels=labels)
        handshake = gauge(
            "wireguard_latest_handshake_seconds", "Seconds since 1970 at the latest handshake", labels=labels
        )
        drops = counter(
            "wireguard_dropped_packets", "Packets dropped, by reason", labels=[*labels[:2], "friendly_name", "reason"]
        )
        for peer in status.peers:
            key = peer.public_key.base64()
            values = [self._interface, key, ",".join(map(str, peer.allowed_ips)), peer.name]
            sent.add_metric(values, peer.tx_bytes)
            received.add_metric(values, peer.rx_bytes)
            handshake.add_metric(values, peer.last_handshake_ns // 10**9)
            for reason, count in peer.drops.items():
                drops.add_metric([self._interface, key, peer.name, reason], count)
        for reason, count in status.drops.items():
            drops.add_metric([self._interface, "", "", reason], count)
        return [sent, received, handshake, drops, *(self._worker_families(status) if status.workers else ())]

    def _worker_families(self, status: DeviceStatus) -> list[Any]:
        counter, gauge = self._prometheus.core.CounterMetricFamily, self._prometheus.core.GaugeMetricFamily
        labels = ["interface", "worker"]
        peers = gauge("wireguard_worker_peers", "Peers that a worker serves", labels=labels)
        handed_over = counter(
            "wireguard_worker_handed_over_packets", "Packets that a worker handed to another one", labels=labels
        )
        replaced = counter("wireguard_worker_replacements", "Processes that ended and were replaced", labels=labels)
        for number, worker in enumerate(status.workers):
            values = [self._interface, str(number)]
            peers.add_metric(values, worker.peers)
            handed_over.add_metric(values, worker.handed_over)
            replaced.add_metric(values, worker.replaced)
        return [peers, handed_over, replaced]


class _Collected:
    """Acts as the registry that prometheus-client reads from."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> list[Any]:
        return self._families
