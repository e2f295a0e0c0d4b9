"""The priority of what carries packets: a worker, or the daemon if it has none.

Each packet that is delivered on this machine wakes a program, and Linux lets that one have the processor at once: the
process that carries packets is then interrupted after each burst, and comes back to cold caches and a few more packets.
With more weight it goes on, and the programs find more packets at a time, which costs them less, too.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
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
    """Raise the loop's thread to NICE, and its session's group if this process began the session.

    Nothing happens if the system does not permit it, or somebody has set a nice value. Programs inherit the value of
    the thread that starts them: start them in the loop's default executor, whose threads keep the ordinary one. The
    group's value counts for each program of the session, so give them a session of their own (`begins_session`).
    """
    with suppress(OSError):  # it needs CAP_SYS_NICE or RLIMIT_NICE
        if os.getpriority(os.PRIO_PROCESS, 0):
            return
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        executor = ThreadPoolExecutor(thread_name_prefix="ordinary", initializer=_be_ordinary)
        asyncio.get_running_loop().set_default_executor(executor)
        for _ in range(_TRIES if begins_session() else 0):
            try:
                _AUTOGROUP.write_text(str(NICE))
            except BlockingIOError:
                await asyncio.sleep(_AGAIN_AFTER)
            else:
                return


def _be_ordinary() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, 0)  # of this thread alone: on Linux, each has a nice value of its own


def begins_session() -> bool:
    """Whether this process began its session, as a service and a daemon in the background do: it has no terminal."""
    return os.getsid(0) == os.getpid()
