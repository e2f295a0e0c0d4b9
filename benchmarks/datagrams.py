"""The highest rate at which UDP arrives without loss: `python -m benchmarks.datagrams receive|send ...` at each end.

iperf3 has no UDP GSO, and its receive buffer holds 90 datagrams, so it loses some even on a bare cable. The receiver
here has GRO and a buffer as large as a real program would ask for. The sender's buffer has the default size, because it
slows an application down to the speed of its interface. After each trial the sender asks how much arrived.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable
from math import sqrt
from typing import Final

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
PORT: Final = 5202
RECEIVE_BUFFER: Final = 4 << 20  # bytes
QUESTION: Final = b"?"  # data is longer
DRAINING: Final = 0.1  # seconds from the last datagram to the question
PATIENCE: Final = 0.3  # seconds to wait for an answer before asking again
NAP: Final = 0.0005  # seconds, the shortest sleep; what becomes due meanwhile is sent afterwards
LOSS: Final = 0.001  # a smaller share counts as none
PRECISION: Final = 1.07  # the ratio of a rate with loss to one without at which the search ends
TRIALS: Final = 14
SATURATED: Final = 0.85  # of the wanted rate; if less arrives, the sender is at its limit


def receive(address: str) -> None:
    """Count bytes; when asked, answer how many, and start again at 0. Prints "ready", and runs until it is killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        sock.bind((address, PORT))
        print("ready", flush=True)
        buffer, total, is_answered = bytearray(1 << 16), 0, False
        receive_into = sock.recvfrom_into
        while True:
            length, source = receive_into(buffer)
            if length > len(QUESTION):
                if is_answered:
                    total, is_answered = 0, False
                total += length
            else:
                sock.sendto(str(total).encode(), source)
                is_answered = True


class Sender:
    """Sends datagrams of `size` bytes, `segments` per system call, for `seconds` at each rate."""

    def __init__(self, address: str, size: int, segments: int, seconds: float) -> None:
        self._payload = bytes(size * segments)
        self._seconds = seconds
        self._data, self._control = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        if segments > 1:
            self._data.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size)
        self._control.settimeout(PATIENCE)
        for sock in (self._data, self._control):
            sock.connect((address, PORT))

    def trial(self, mbit_s: float) -> tuple[float, float]:
        """Mbit/s that arrived, and the share that was lost."""
        calls_a_second = mbit_s * 1e6 / 8 / len(self._payload)
        write, payload = self._data.send, self._payload
        sent, begin, now = 0, time.perf_counter(), 0.0
        while now < self._seconds:
            for _ in range(min(int(now * calls_a_second) + 1 - sent, 64)):
                write(payload)
                sent += 1
            now = time.perf_counter() - begin
            if (ahead := sent / calls_a_second - now) > 0:
                time.sleep(max(ahead, NAP))
                now = time.perf_counter() - begin
        time.sleep(DRAINING)
        arrived = self._ask()
        return arrived * 8e-6 / now, 1 - arrived / (sent * len(payload))

    def _ask(self) -> int:
        for _ in range(20):
            self._control.send(QUESTION)
            with contextlib.suppress(TimeoutError):
                return int(self._control.recv(64))
        raise TimeoutError("the receiver does not answer")


def fastest(trial: Callable[[float], tuple[float, float]], rate: float, step: float) -> float:
    """The most Mbit/s that arrived at a rate with (almost) no loss, searched from `rate` in steps of the factor `step`.

    Loss in one trial may be the machine's fault, so a rate is lossy only after two.
    """
    good = bad = best = 0.0
    for _ in range(TRIALS):
        arrived, loss = trial(rate)
        if loss >= LOSS:
            arrived, loss = trial(rate)
        if loss < LOSS:
            good, best = rate, max(best, arrived)
        else:
            bad = rate
        if (good == rate and arrived < SATURATED * rate) or (good and bad and bad / good < PRECISION):
            break
        rate = sqrt(good * bad) if good and bad else good * step if good else bad / step
    return best


def main(arguments: list[str]) -> None:
    match arguments:
        case ["receive", address]:
            receive(address)
        case ["send", address, size, segments, seconds, rate, step]:
            sender = Sender(address, int(size), int(segments), float(seconds))
            print(fastest(sender.trial, float(rate), float(step)))
        case _:
            sys.exit(f"{__doc__}\nreceive ADDRESS, or: send ADDRESS SIZE SEGMENTS SECONDS FIRST-MBIT/S FACTOR")


if __name__ == "__main__":
    main(sys.argv[1:])
