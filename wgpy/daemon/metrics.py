"""Prometheus metrics of one interface, under the names of the common WireGuard exporter."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

from wgpy.device.status import DeviceStatus
from wgpy.errors import ControlError

TIMEOUT = 5.0  # seconds for the event loop to tell the status


class Metrics:
    """Serves http://ADDRESS:PORT/metrics from a thread of its own; the status comes from the event loop.

    `address` is HOST:PORT; an IPv6 host stands in brackets.
    """

    def __init__(self, interface: str, address: str, status: Callable[[], DeviceStatus]) -> None:
        self._interface = interface
        self._host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 0xFFFF or not self._host:
            raise ControlError(f"--metrics {address}: expected HOST:PORT, such as 127.0.0.1:9586")
        self._port = int(port)
        self._status = status
        self._server: Any = None

    def start(self) -> None:
        """Listen. Raises ControlError when the address cannot be had, or prometheus-client is missing."""
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            remedy = f"{sys.executable} -m pip install prometheus-client"
            raise ControlError(f"--metrics needs prometheus-client: {remedy}") from None
        self._loop = asyncio.get_running_loop()
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, _ = start_http_server(self._port, self._host.strip("[]"), registry)
        except OSError as error:
            raise ControlError(f"--metrics {self._host}:{self._port}: {error.strerror}") from error

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def describe(self) -> list[Any]:
        """Nothing beforehand, so that registering asks nothing of the loop."""
        return []

    def collect(self) -> Iterator[Any]:
        """Called for each scrape, in the server's thread."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = asyncio.run_coroutine_threadsafe(self._tell(), self._loop).result(TIMEOUT)
        labels = ["interface", "public_key", "allowed_ips", "friendly_name"]
        sent = CounterMetricFamily("wireguard_sent_bytes", "Bytes sent to the peer", labels=labels)
        received = CounterMetricFamily("wireguard_received_bytes", "Bytes received from the peer", labels=labels)
        handshake = GaugeMetricFamily(
            "wireguard_latest_handshake_seconds", "Seconds since 1970 at the latest handshake", labels=labels
        )
        drops = CounterMetricFamily(
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
        return iter((sent, received, handshake, drops))

    async def _tell(self) -> DeviceStatus:
        return self._status()
