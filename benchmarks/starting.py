"""The time to import, to show and to carry the first byte; and how often an idle tunnel wakes up."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.goals import WGPY
from benchmarks.plan import Plan
from benchmarks.tunnels import PROGRAMS, Program, Tunnel, cable, tunnel, wait_until_up
from tests.support.peers import WGPY as COMMAND

SETTLING: Final = 3.0  # seconds in which the kernel sends what it sends when an interface comes up
IDLE: Final = 5.0  # seconds


def starting(plan: Plan) -> None:
    """`import wgpy`, `wgpy show`, and the time to the first byte."""
    if WGPY in (program.name for program in plan.programs()):
        plan.attempt("starting", partial(_commands, plan))
    for number, program in plan.turns(daemons=True):
        plan.attempt(f"{program.name}: up", partial(_up, plan, number, program))


def _commands(plan: Plan) -> None:
    statement = "import wgpy"
    with tunnel(PROGRAMS[WGPY]) as through:
        wait_until_up(through)
        for number in range(plan.rounds):
            _seconds(*COMMAND, "show", through.left.name)  # the first one in a round finds cold caches
            imported = _seconds(sys.executable, "-c", statement) - _seconds(sys.executable, "-c", "pass")
            plan.add("import", WGPY, number, imported * 1e3, f"python -c '{statement}', less python -c pass")
            shown = _seconds(*COMMAND, "show", through.left.name)
            plan.add("show", WGPY, number, shown * 1e3, "time wgpy show INTERFACE")


def _seconds(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _up(plan: Plan, number: int, program: Program) -> None:
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        left, right = cable(cleanup)
        far = program.open(right, left, directory)
        cleanup.callback(far.close)
        begin = time.perf_counter()
        near = program.open(left, right, directory)
        cleanup.callback(near.close)
        left.namespace.run("ping", "-c", "1", "-W", "5", right.inner4)
        seconds = time.perf_counter() - begin
        command = "time sh -c 'wgpy up FILE; ping -c 1 ADDRESS'; other programs by wg and ip"
        plan.add("up", program.name, number, seconds, command)


def idle(plan: Plan) -> None:
    """Wakeups of a tunnel that has carried nothing, so that no timer is due; both ends, all programs at once."""
    with ExitStack() as cleanup:
        tunnels: list[Tunnel] = []
        for program in plan.programs():
            plan.attempt(f"{program.name}: idle", partial(_open, tunnels, cleanup, program))
        ends = [through.pids() for through in tunnels]  # asked beforehand, because asking wakes the daemon
        time.sleep(SETTLING)
        for number in range(plan.rounds):
            before = [sum(map(switches, pids)) for pids in ends]
            time.sleep(IDLE)
            for through, pids, count in zip(tunnels, ends, before, strict=True):
                if pids:
                    wakeups = (sum(map(switches, pids)) - count) / IDLE / len(pids)
                    command = f"grep ctxt_switches /proc/PID/task/*/status, now and {IDLE:.0f} s later"
                    plan.add("wakeups", through.program.name, number, wakeups, command)


def _open(tunnels: list[Tunnel], cleanup: ExitStack, program: Program) -> None:
    tunnels.append(cleanup.enter_context(tunnel(program)))


def switches(pid: int) -> int:
    """How often the threads of a process have been scheduled so far."""
    statuses = (task.read_text().splitlines() for task in Path(f"/proc/{pid}/task").glob("*/status"))
    return sum(int(line.split()[1]) for lines in statuses for line in lines if "ctxt_switches" in line)
