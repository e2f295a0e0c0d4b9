"""Prometheus metrics of a gateway: what AWS Client VPN tells CloudWatch, and what nftables dropped."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from wgpy.daemon.metrics import MetricsServer
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.service.flow_log import FlowLog
from wgpy.gateway.service.gateway import Gateway

STUCK: Final = 60.0  # seconds: a tick of the largest gateway takes a few


class GatewayMetrics(MetricsServer):
    """Serves the metrics of a gateway. Raises ControlError if `address` is not HOST:PORT."""

    def __init__(self, gateway: Gateway, firewall: Firewall, address: str, flow_log: FlowLog | None = None) -> None:
        super().__init__(gateway.interface, address)
        self._gateway, self._firewall, self._flow_log = gateway, firewall, flow_log

    def page(self, path: bytes) -> tuple[int, bytes] | None:
        """/healthz: whether the process is alive. /readyz: whether clients are served, too, and if not, why."""
        if path not in (b"/healthz", b"/readyz"):
            return None
        if self._gateway.stalled > STUCK:
            wrong = f"it has done nothing for {STUCK:g} seconds"
        else:
            wrong = self._gateway.ailment if path == b"/readyz" else ""
        return (503, f"{wrong}\n".encode(errors="replace")) if wrong else (200, b"ok\n")

    async def collect(self) -> list[Any]:
        dropped = await asyncio.to_thread(self._firewall.dropped)
        core = self._prometheus.core
        active = core.GaugeMetricFamily("wgpy_gateway_sessions", "Sessions that are active", value=self._gateway.active)
        log = core.CounterMetricFamily(
            "wgpy_gateway_connections", "Entries of the connection log, by what they say", labels=["event", "reason"]
        )
        for (event, reason), count in list(self._gateway.counts.items()):  # another thread adds to them
            log.add_metric([event, reason], count)
        traffic = core.CounterMetricFamily(
            "wgpy_gateway_traffic_bytes", "Bytes of sessions, read every ten seconds", labels=["direction"]
        )
        packets = core.CounterMetricFamily(
            "wgpy_gateway_traffic_packets", "Packets of sessions, read every ten seconds", labels=["direction"]
        )
        total = self._gateway.total
        for direction, count, size in (
            ("ingress", total.ingress_packets, total.ingress_bytes),
            ("egress", total.egress_packets, total.egress_bytes),
        ):
            traffic.add_metric([direction], size)
            packets.add_metric([direction], count)
        drops = core.CounterMetricFamily(
            "wgpy_gateway_dropped_packets", "Packets that the firewall dropped, by reason", labels=["reason"]
        )
        for reason, count in dropped.items():
            drops.add_metric([reason], count)
        lost = core.CounterMetricFamily(
            "wgpy_gateway_flow_records_lost",
            "Connections and denied packets that the flow log has no record of, counted every minute",
            value=self._flow_log.lost if self._flow_log else 0,
        )
        return [active, log, traffic, packets, drops, lost]
