"""`make soak`: story after story until the time is up: python -m tests.simulation [--minutes N] [--seed S] [--hours H]

A failing seed is told with the command that plays it again, event for event.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import count
from traceback import format_exception

from tests.simulation.life import Life


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on (1)")
    parser.add_argument("--seed", type=int, help="play this one story only")
    parser.add_argument("--hours", type=float, default=100.0, help="of each story (100)")
    arguments = parser.parse_args()
    begun, told = time.monotonic(), 0.0
    for seed in count(int(time.time())) if arguments.seed is None else [arguments.seed]:
        life = Life(seed)
        try:
            life.live(arguments.hours)
        except Exception as breach:  # an invariant, or that nothing a peer sends makes a device raise
            what = str(breach) if isinstance(breach, AssertionError) else "".join(format_exception(breach))
            print(f"seed {seed}: at {life.world.now:.3f} s: {what}")
            print(f"again: python -m tests.simulation --seed {seed} --hours {arguments.hours:g}")
            return 1
        told += arguments.hours
        witness = life.witness
        spent = time.monotonic() - begun
        print(
            f"seed {seed}: {life.sent} packets sent, {witness.delivered} delivered, trace {life.digest:08x}; "
            f"{told:g} hours in {spent:.0f} s",
            flush=True,
        )
        if spent > arguments.minutes * 60:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
