"""A TCP connection of the stack as an asyncio transport."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from errno import EPIPE
from socket import SOCK_STREAM
from typing import Any, Final

from wgpy.errors import TunnelClosedError
from wgpy.stack.failures import failure
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.state import State
from wgpy.userspace.flow import FlowControl
from wgpy.userspace.sockets import SocketView, sockaddr
from wgpy.userspace.tun import StackTun

# Bytes that may be on their way before what is written counts as waiting: as in the kernel's buffers, which grow with
# the congestion window (tcp_sndbuf_expand), up to net.ipv4.tcp_wmem's usual 4 MiB.
_LEAST_ROOM: Final = 256 << 10
_MOST_ROOM: Final = 4 << 20
_BYTES_LIKE: Final = (bytes, bytearray, memoryview)


class StreamTransport(FlowControl, asyncio.Transport):
    """As the event loop's own: closing sends what was written, then a FIN; aborting drops what waits.

    What the peer has acknowledged, or the connection has room for, does not count as buffered.
    """

    _start_tls_compatible = True  # asyncio's loop.start_tls asks for it

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tun: StackTun, connection: Connection, protocol: asyncio.BaseProtocol
    ) -> None:
        names = connection.names
        own, peer = sockaddr(names.local, names.local_port), sockaddr(names.remote, names.remote_port)
        self._socket = SocketView(SOCK_STREAM, own, peer, connection.patience.settings, self._settings_changed)
        super().__init__({"sockname": own, "peername": peer, "socket": self._socket})
        self._loop = loop
        self._tun = tun
        self._connection = connection
        self._reads_paused = False
        self._at_end = False  # of what the peer sends
        self._eof_wanted = self._closing = self._lost = False
        self.set_protocol(protocol)
        tun.handlers[connection] = self._look

    def begin(self) -> None:
        """Tell the protocol of the connection, and of what has come already."""
        self._protocol.connection_made(self)
        connection = self._connection
        if connection.receiver.unread or connection.is_at_end or connection.state is State.CLOSED:
            self._loop.call_soon(self._look_again)

    def _settings_changed(self) -> None:
        self._connection.patience.heard(self._tun.clock())
        self._tun.wake(self._connection)

    # The protocol.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol
        self._is_buffered = isinstance(protocol, asyncio.BufferedProtocol)

    # From the peer.

    def _look(self) -> None:
        """Something has become of the connection."""
        connection = self._connection
        receiver = connection.receiver
        try:
            while receiver.unread and self.is_reading():
                self._deliver(connection.read())
            if receiver.is_finished and connection.is_at_end and not self._at_end and self.is_reading():
                self._at_end = True
                if not self._protocol.eof_received():
                    self.close()
            if self._writes_paused:
                self._resume_writes()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._failed(error, "an asyncio protocol failed")
            return
        if self._closing:
            self._finish()
        elif connection.error is None or connection.state is not State.CLOSED or connection.receiver.unread:
            return  # what came before the error is read first
        elif not self._at_end or self._writes_paused:  # a program that has read to the end learns of it by writing
            self._force_close(connection.error)

    def _deliver(self, data: bytes) -> None:
        if not self._is_buffered:
            self._protocol.data_received(data)
            return
        view = memoryview(data)
        while view and not self._lost:
            buffer = memoryview(self._protocol.get_buffer(len(view)))
            if not buffer:
                raise RuntimeError("get_buffer() returned an empty buffer")
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            self._protocol.buffer_updated(count)
            view = view[count:]
            if not self._is_buffered:  # the protocol was replaced
                if view:
                    self._protocol.data_received(bytes(view))
                return

    def is_reading(self) -> bool:
        return not self._reads_paused and not self._closing

    def pause_reading(self) -> None:
        self._reads_paused = True

    def resume_reading(self) -> None:
        if self._reads_paused and not self._closing:
            self._reads_paused = False
            self._loop.call_soon(self._look_again)

    def _look_again(self) -> None:
        if not self._lost:
            self._look()
            self._tun.wake(self._connection)

    # To the peer.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, _BYTES_LIKE):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._closing:
            return
        connection = self._connection
        if connection.state is State.CLOSED:
            self._force_close(connection.error or failure(EPIPE))
            return
        connection.write(bytes(data))
        self._tun.send(connection)
        self._pause_writes()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._eof_wanted and not self._closing:
            self._eof_wanted = True
            self._connection.shutdown()
            self._tun.wake(self._connection)

    def get_write_buffer_size(self) -> int:
        """Bytes that were written and for which the connection has no room yet."""
        sender = self._connection.sender
        held = sender.buffer.end - sender.buffer.start
        if held <= _LEAST_ROOM:
            return 0
        return max(0, held - min(_MOST_ROOM, max(_LEAST_ROOM, 2 * int(sender.congestion.window))))

    # The end.

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._finish()

    def _finish(self) -> None:
        """Close the connection once it has taken all that was written."""
        if self._lost:
            return
        is_over = self._connection.state is State.CLOSED
        if is_over or not self.get_write_buffer_size():
            if self._socket.breaks_on_close:
                self._connection.abort()
            else:
                self._connection.close(self._tun.clock())
            self._end(self._connection.error if is_over else None)

    def abort(self) -> None:
        self._force_close(None)

    def break_off(self) -> None:
        """The tunnel is closed under the connection."""
        self._connection.abort()
        self._force_close(TunnelClosedError("the tunnel was closed while this connection was open"))

    def _force_close(self, error: BaseException | None) -> None:
        """End it now; asyncio's SSL calls this by its name."""
        if self._lost:
            return
        if self._connection.state is not State.CLOSED:
            if self._socket.breaks_on_close or self.get_write_buffer_size():
                self._connection.abort()
            else:
                self._connection.close(self._tun.clock())
        self._end(error)

    def _failed(self, error: BaseException, message: str) -> None:
        self._report(error, message)
        self._connection.abort()
        self._force_close(error)

    def _end(self, error: BaseException | None) -> None:
        self._closing = self._lost = True
        self._connection.receiver.discard()
        self._tun.handlers.pop(self._connection, None)
        self._tun.wake(self._connection)
        self._loop.call_soon(self._protocol.connection_lost, error)
