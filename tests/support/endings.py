"""Whatever ends a test run, it takes along what it started: SIGTERM and SIGHUP are like Ctrl-C, which raises."""

from __future__ import annotations

import signal

_OTHERS = (signal.SIGTERM, signal.SIGHUP)


def heed_signals() -> None:
    """Have the signals that end a program raise KeyboardInterrupt, so that every `finally` and fixture has its turn."""
    for number in _OTHERS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    """From now on nothing interrupts what clears away."""
    for number in (signal.SIGINT, *_OTHERS):
        signal.signal(number, signal.SIG_IGN)
