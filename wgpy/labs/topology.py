"""The network of a lab: nodes on a grid, cables and tunnels. The lab is built, and its picture drawn, from this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["host", "gateway", "internet"]


@dataclass(frozen=True, slots=True)
class Node:
    """One machine: a network namespace. Gateways and the Internet forward packets, hosts do not."""

    name: str
    column: float
    row: float
    kind: Kind = "host"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cable:
    """A cable between two nodes. Each end is named after the other node. A node's first cable is its default route.

    With `delay_ms` it is a slow line (`wgpy.labs.line`), whose delay and loss a lab may change while it runs.
    """

    a: str
    a_address: str  # with the prefix length, as 192.0.2.1/24
    b_address: str
    b: str
    mtu: int = 1500
    delay_ms: float | None = None
    loss: float = 0.0  # from 0 to 1

    @property
    def is_poor(self) -> bool:
        return self.delay_ms is not None


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel, only for the picture: the configuration files make the real one."""

    a: str
    b: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab."""

    title: str
    nodes: tuple[Node, ...]
    cables: tuple[Cable, ...]
    tunnels: tuple[Tunnel, ...] = ()

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def addresses(self, name: str) -> list[str]:
        """A node's addresses with their prefix lengths, in the order of its cables."""
        return [
            address
            for cable in self.cables
            for node, address in ((cable.a, cable.a_address), (cable.b, cable.b_address))
            if node == name
        ]
