"""Simulate one seed after another until the time is up (`make soak`).

For a failing seed, the command that repeats it event for event is printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import count
from traceback import format_exception

from tests.simulation.simulation import Simulation
from tests.simulation.streams import WHOLE


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on with new seeds (1)")
    parser.add_argument("--seed", type=int, help="simulate this seed only")
    parser.add_argument("--hours", type=float, default=100.0, help="simulated hours for each seed (100)")
    arguments = parser.parse_args()
    begun, told = time.monotonic(), 0.0
    for seed in count(int(time.time())) if arguments.seed is None else [arguments.seed]:
        simulation = Simulation(seed)
        try:
            simulation.run(arguments.hours)
        except Exception as breach:  # an invariant, or that nothing a peer sends makes a device raise
            what = str(breach) if isinstance(breach, AssertionError) else "".join(format_exception(breach))
            print(f"seed {seed}: at {simulation.world.now:.3f} s: {what}")
            print(f"again: python -m tests.simulation --seed {seed} --hours {arguments.hours:g}")
            return 1
        told += arguments.hours
        checker = simulation.checker
        spent = time.monotonic() - begun
        print(
            f"seed {seed}: {simulation.sent} packets sent, {checker.delivered} delivered, "
            f"{simulation.streams.outcomes.count(WHOLE) // 2} streams whole, "
            f"trace {simulation.digest:08x}; {told:g} hours in {spent:.0f} s",
            flush=True,
        )
        if spent > arguments.minutes * 60:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
