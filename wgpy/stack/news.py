"""What a host tells its applications, and the listeners at which connections wait for them."""

from __future__ import annotations

from collections import deque

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


class News:
    """What applications should look at again."""

    __slots__ = ("connections", "echoes", "listeners", "sockets", "unanswered")

    def __init__(self) -> None:
        self.connections: dict[Connection, None] = {}
        self.listeners: dict[Listener, None] = {}
        self.sockets: dict[udp.UdpSocket, None] = {}
        self.echoes: list[icmp.Echo] = []
        self.unanswered: list[icmp.Unreachable] = []  # echo requests that did not arrive

    def __bool__(self) -> bool:
        return bool(self.connections or self.listeners or self.sockets or self.echoes or self.unanswered)
