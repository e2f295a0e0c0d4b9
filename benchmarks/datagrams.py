"""UDP from one end to the other at a given rate, counted: `python -m benchmarks.datagrams send|receive ...`.

Not iperf3, which knows no UDP GSO and whose receiver's buffer holds 90 datagrams: that loses some on a bare cable. The
receiver here has a buffer that a real one would ask for, and GRO; the sender's is left as it is, for that is what holds
an application back when its interface is slower than it.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import Final

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
RECEIVE_BUFFER: Final = 4 << 20  # bytes
PATIENCE: Final = 5.0  # seconds to wait for the first
SILENCE: Final = 0.3  # seconds after the last
NAP: Final = 0.0005  # seconds to sleep at least: what becomes due meanwhile is sent then
PORT: Final = 5202


def receive(address: str) -> None:
    """Count what comes until nothing does any more; prints "ready", then the bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        _set_timeout(sock, PATIENCE)
        sock.bind((address, PORT))
        print("ready", flush=True)
        buffer, total = bytearray(1 << 16), 0
        recv_into = sock.recv_into
        try:
            total += recv_into(buffer)
            _set_timeout(sock, SILENCE)
            while True:
                total += recv_into(buffer)
        except BlockingIOError:
            print(total)


def send(address: str, size: int, segments: int, mbit_s: float, seconds: float) -> None:
    """Datagrams of `size` bytes, `segments` of them with each system call; prints the bytes sent and the seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if segments > 1:
            sock.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size)
        sock.connect((address, PORT))
        payload, write = bytes(size * segments), sock.send
        calls_a_second = mbit_s * 1e6 / 8 / len(payload)
        sent, begin, now = 0, time.perf_counter(), 0.0
        while now < seconds:
            due = int(now * calls_a_second) + 1
            for _ in range(min(due - sent, 64)):
                write(payload)
                sent += 1
            now = time.perf_counter() - begin
            if (ahead := sent / calls_a_second - now) > 0:
                time.sleep(max(ahead, NAP))
                now = time.perf_counter() - begin
        print(sent * len(payload), now)


def _set_timeout(sock: socket.socket, seconds: float) -> None:
    """By the kernel: Python's own would ask poll before each datagram."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["receive", address]:
            receive(address)
        case ["send", address, size, segments, mbit_s, seconds]:
            send(address, int(size), int(segments), float(mbit_s), float(seconds))
        case _:
            sys.exit(__doc__)
