"""The priority of processes that only carry packets.

Each packet that is delivered on this machine wakes a program, and Linux lets that one have the processor at once: the
process that carries packets is then interrupted after each burst, and comes back to cold caches and a few more packets.
With more weight it goes on, and the programs find more packets at a time, which costs them less, too.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NICE: Final = -10  # nine times the weight of an ordinary program; with three, the workers were still interrupted
# Where Linux groups processes by session (CONFIG_SCHED_AUTOGROUP, sched(7)), only the group's nice value matters to the
# other groups. Without CAP_SYS_ADMIN, all processes of the machine together may set one in 100 ms.
_AUTOGROUP: Final = Path("/proc/self/autogroup")
_AGAIN_AFTER: Final = 0.1  # seconds
_TRIES: Final = 20


async def raise_priority() -> None:
    """Raise this process and its session's group to NICE, if the system permits it and nobody has set a nice value.

    The session must have no other process: a program that is started later inherits the priority.
    """
    with suppress(OSError):  # it needs CAP_SYS_NICE or RLIMIT_NICE
        if os.getpriority(os.PRIO_PROCESS, 0):
            return
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        for _ in range(_TRIES):
            try:
                _AUTOGROUP.write_text(str(NICE))
            except BlockingIOError:
                await asyncio.sleep(_AGAIN_AFTER)
            else:
                return
