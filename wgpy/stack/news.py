"""What a host tells its applications, and the listeners at which connections wait for them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from wgpy.stack import icmp, udp
from wgpy.stack.tcp.connection import Connection


class Listener:
    """A port that connections come to. `waiting` are those that are open and were not taken by the application."""

    __slots__ = ("address", "backlog", "half_open", "port", "waiting")

    def __init__(self, address: bytes | None, port: int, backlog: int) -> None:
        """`address` None: all of the host's."""
        self.address: bytes | None = address
        self.port: int = port
        self.backlog: int = backlog
        self.half_open: dict[Connection, None] = {}  # the oldest first
        self.waiting: deque[Connection] = deque()


@dataclass(slots=True)
class News:
    """What applications should look at again."""

    connections: dict[Connection, None] = field(default_factory=dict)
    listeners: dict[Listener, None] = field(default_factory=dict)
    sockets: dict[udp.UdpSocket, None] = field(default_factory=dict)
    echoes: list[icmp.Echo] = field(default_factory=list)
    unanswered: list[icmp.Unreachable] = field(default_factory=list)  # echo requests that did not arrive

    def __bool__(self) -> bool:
        return bool(self.connections or self.listeners or self.sockets or self.echoes or self.unanswered)
