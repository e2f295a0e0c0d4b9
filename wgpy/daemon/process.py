"""The daemon of one interface: starting it in the foreground or background, running it, and stopping it.

`run` serves in the foreground. `start_in_background` forks, and returns once the child is ready or has failed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from wgpy.config.redact import redacted
from wgpy.config.values import ALL_OFFLOADS, InterfaceConfig, Offloads
from wgpy.daemon.apply import Apply
from wgpy.daemon.events import EventLog, KeyLog, open_log
from wgpy.daemon.files import own_directory
from wgpy.daemon.interface import Interface, LocalInterface
from wgpy.daemon.metrics import Metrics
from wgpy.daemon.notify import Notifier
from wgpy.daemon.quick import Quick
from wgpy.daemon.save import save_or_keep
from wgpy.daemon.sessions import SessionFile
from wgpy.daemon.stop import log_path, say
from wgpy.daemon.timestamp import TimestampFloor
from wgpy.daemon.uapi_server import UapiServer
from wgpy.datapath import machine_clock
from wgpy.device.changes import DeviceChange
from wgpy.device.effects import Event
from wgpy.errors import TunError, WgpyError
from wgpy.system.loop import run_loop
from wgpy.tun.linux import LinuxTun
from wgpy.tunnel import Tunnel
from wgpy.workers.count import Workers, make_room, number_of_workers, why_one

log: Final = logging.getLogger("wgpy")


@dataclass(frozen=True, slots=True)
class Job:
    """What a daemon is to serve."""

    name: str
    config: InterfaceConfig
    path: Path | None = None  # of the configuration file
    quick: bool = True  # addresses, routes, DNS and hooks, like wg-quick; else only the interface, like wireguard-go
    offloads: Offloads = ALL_OFFLOADS
    tun_fd: int | None = None  # already attached to the interface
    uapi_fd: int | None = None  # already listening on its socket
    events: str = ""  # a file for events, one JSON object a line; "-" is standard output; "" is none
    keylog: str = ""  # a file for the keys of every handshake
    metrics: str = ""  # HOST:PORT for Prometheus
    workers: Workers | None = None  # None for what the configuration says


def run(job: Job, *, ready: Callable[[str], None] = lambda _: None, waiting: socket.socket | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the end of the interface. Returns an exit status; prints errors to stderr.

    `ready` is called with the interface's name once it is up. `waiting` is a socket to the command that waits for that:
    until then, if the command ends, so does the daemon.
    """
    try:
        return run_loop(partial(_serve, job, ready, waiting))
    except (WgpyError, OSError) as error:
        print(redacted(f"wgpy: {job.name}: {error}"), file=sys.stderr)
        return 1


async def _serve(job: Job, ready: Callable[[str], None], waiting: socket.socket | None) -> int:
    loop = asyncio.get_running_loop()
    notifier = Notifier()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    if waiting is not None:
        loop.add_reader(waiting, stopping.set)  # readable at end of file, when the command has ended
    record = EventLog(job.name, open_log(job.events)) if job.events else None

    def happened(event: Event) -> None:
        floor.handshake()
        sessions.happened(event)
        if record is not None:
            record(event, interface.name_of(event.public_key))

    interface: Interface = _open(job, happened, lambda: floor.handshake())
    metrics = Metrics(interface.name, job.metrics, interface.status) if job.metrics else None
    uapi = UapiServer(interface, listener=job.uapi_fd)
    steps: list[str] = []

    def record_step(step: str) -> None:
        steps.append(step)
        say(step)

    quick: Quick = Quick(
        interface.name,
        job.config,
        say=record_step,
        set_fwmark=lambda mark: _in_loop(loop, interface.configure(DeviceChange(fwmark=mark))),
        close_interface=lambda: _in_loop(loop, interface.close()),
        save=lambda: save_or_keep(interface.name, job.path, quick.config) if job.path else None,
    )
    floor: TimestampFloor = TimestampFloor(interface)
    floor.restore()
    sessions: SessionFile = SessionFile(interface, machine_clock)
    sessions.restore()
    interface.sessions = sessions.known
    watchdog = loop.create_task(notifier.keep_alive(interface.check))
    try:
        await uapi.start()  # first, so that `wgpy down` works while names are still being resolved
        if job.quick:
            await asyncio.to_thread(quick.clear_leftovers)
        await _first_of(stopping.wait(), interface.start(up=job.quick))
        if stopping.is_set():
            return 0
        if metrics:
            await metrics.start()
        if job.quick:
            await asyncio.to_thread(quick.up, (await interface.status()).endpoints())
        interface.follow_link()
        uapi.apply = Apply(interface, quick, steps)
        if waiting is not None:
            loop.remove_reader(waiting)
        if not stopping.is_set():
            ready(interface.name)
            notifier.say("READY=1")
        try:
            await _first_of(stopping.wait(), interface.wait_closed(), uapi.wait_removed())
        except TunError as error:
            if job.quick:
                raise
            log.info("(%s) %s", interface.name, error)  # wg-quick takes a bare interface down by `ip link delete`
    finally:
        notifier.say("STOPPING=1")
        floor.save()
        sessions.save()
        if metrics:
            metrics.close()
        await asyncio.to_thread(quick.down)
        await uapi.close()  # last, because PreDown may still use it
        await interface.close()
        watchdog.cancel()
    return 0


def _open(job: Job, on_event: Callable[[Event], None], on_unanswered: Callable[[], None]) -> Interface:
    """Make the interface, or take it over: served by this process, or by several workers."""
    offload = (job.offloads & job.config.offloads).tun
    keylog = KeyLog(open_log(job.keylog)) if job.keylog else None
    workers = _workers(job)
    if job.tun_fd is None and job.name in (existing for _, existing in socket.if_nameindex()):
        raise TunError(
            f"interface {job.name} already exists: `wgpy down {job.name}` if wgpy serves it, or choose another name"
        )
    if workers > 1:
        from wgpy.workers.pool import WorkerPool

        return WorkerPool(
            job.config,
            queues=LinuxTun.open_queues(job.name, workers, offload=offload),
            on_event=on_event,
            on_unanswered=on_unanswered,
            keylog=keylog,
            offloads=job.offloads,
        )
    if job.tun_fd is not None:
        tun = LinuxTun.adopt(job.tun_fd, offload=offload)
    else:
        tun = LinuxTun.open(job.name, offload=offload)
    tunnel = Tunnel(job.config, tun=tun, on_event=on_event, keylog=keylog, offloads=job.offloads)
    tunnel.on_unanswered = on_unanswered
    return LocalInterface(tunnel)


def _workers(job: Job) -> int:
    """How many workers serve the interface; says why, if it is only one although more were wanted."""
    wanted = number_of_workers(job.config.workers if job.workers is None else job.workers, len(job.config.peers))
    if wanted == 1:
        return 1
    make_room(wanted)
    why = why_one(wanted) if job.tun_fd is None else "WG_TUN_FD is a single queue of its interface"
    if why:
        log.warning("(%s) one worker instead of %d: %s", job.name, wanted, why)
    return 1 if why else wanted


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is done, and raise what it raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*done)


def _in_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    """Do something in the loop's thread and wait for it, from the thread in which `Quick` runs."""
    asyncio.run_coroutine_threadsafe(work, loop).result()


def start_in_background(job: Job, *, keep_output: bool = False) -> int:
    """Fork, and return in the parent: 0 once the child is up, or its exit status if it failed and undid everything.

    Once up, the child writes to its log file, or with `keep_output` to its parent's standard error. If the parent ends
    before that, however it does, the child undoes what it did. On SIGINT, SIGTERM and SIGHUP the parent waits for that,
    and then raises KeyboardInterrupt.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child:
        theirs.close()
        try:
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                    signal.signal(number, signal.default_int_handler)
            if ours.recv(1):
                return 0
        except KeyboardInterrupt:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1
    ours.close()
    os.setsid()
    name = job.name

    def ready(made: str) -> None:
        nonlocal name
        name = made  # the kernel's choice if the job's name has a %d in it
        _detach(None if keep_output else name)
        with theirs:
            theirs.send(b"1")

    status = 1
    try:
        status = run(job, ready=ready, waiting=theirs)
        if status == 0:
            log_path(name).unlink(missing_ok=True)
    except BaseException:
        log.exception("(%s) the daemon failed", name)
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def _detach(name: str | None) -> None:
    """Detach from the terminal. Output goes to the log file of `name`, mode 0600; None leaves it as it is."""
    descriptors = [os.open(os.devnull, os.O_RDONLY)]
    if name is not None:
        path = log_path(name)
        with own_directory(path.parent) as directory:
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            descriptors += [os.open(path.name, flags, 0o600, dir_fd=directory)] * 2
    for target, fd in enumerate(descriptors):
        os.dup2(fd, target)
    for fd in set(descriptors):
        os.close(fd)
