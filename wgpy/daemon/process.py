"""One interface's process: from a configuration file to a running tunnel, and back to nothing.

`run` serves in the foreground. `start_in_background` forks first, and returns only when the child is ready, with the
child's exit status if it is not.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from wgpy.config.redact import redacted
from wgpy.config.values import ALL_OFFLOADS, InterfaceConfig, Offloads
from wgpy.daemon.apply import Apply
from wgpy.daemon.events import EventLog, KeyLog, open_log
from wgpy.daemon.files import own_directory
from wgpy.daemon.former import FormerPeers
from wgpy.daemon.leftovers import RUN_DIRECTORY, Leftovers
from wgpy.daemon.loop import run_loop
from wgpy.daemon.metrics import Metrics
from wgpy.daemon.notify import Notifier
from wgpy.daemon.quick import Quick
from wgpy.daemon.save import save_or_keep
from wgpy.daemon.timestamp import TimestampFloor
from wgpy.daemon.uapi_client import is_served, serving_pid, socket_path
from wgpy.daemon.uapi_server import UapiServer
from wgpy.datapath import machine_clock
from wgpy.device.changes import DeviceChange
from wgpy.device.effects import Event
from wgpy.errors import ControlError, TunError, WgpyError
from wgpy.tun.linux import LinuxTun
from wgpy.tunnel import Tunnel

log = logging.getLogger("wgpy")

STOP_TIMEOUT: Final = 60  # seconds; hooks may take their time
SILENCE: Final = 2  # seconds until it is said what is waited for


def log_path(name: str) -> Path:
    """Where a daemon in the background writes what it would have printed."""
    return RUN_DIRECTORY / f"{name}.log"


@dataclass(frozen=True, slots=True)
class Job:
    """What a daemon is to serve."""

    name: str
    config: InterfaceConfig
    path: Path | None = None  # of the file that says so
    quick: bool = True  # addresses, routes, DNS and hooks, as wg-quick; else the interface alone, as wireguard-go
    offloads: Offloads = ALL_OFFLOADS
    tun_fd: int | None = None  # already attached to the interface
    uapi_fd: int | None = None  # already listening on its socket
    events: str = ""  # a file for events, one JSON object a line; "-" is standard output
    keylog: str = ""  # a file for the keys of every handshake
    metrics: str = ""  # HOST:PORT for Prometheus


def run(job: Job, *, ready: Callable[[str], None] = lambda _: None, waiting: socket.socket | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the end of the interface. Returns an exit status; says errors on stderr.

    `ready` is told the interface's name once it is up. Until then, the end of a command that holds the other end of
    the socket `waiting` ends the daemon, too.
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
        loop.add_reader(waiting, stopping.set)  # at its end of file
    record = EventLog(job.name, open_log(job.events)) if job.events else None

    def told(event: Event) -> None:
        floor.handshake()
        former.happened(event)
        if record is not None:
            record(event, tunnel.name_of(event.public_key))

    tunnel = Tunnel(
        job.config,
        tun=_open_tun(job),
        on_event=told,
        keylog=KeyLog(open_log(job.keylog)) if job.keylog else None,
        offloads=job.offloads,
    )
    metrics = Metrics(tunnel.name, job.metrics, tunnel.status) if job.metrics else None
    uapi = UapiServer(tunnel, listener=job.uapi_fd)
    steps: list[str] = []

    def take_note(step: str) -> None:
        steps.append(step)
        say(step)

    quick = Quick(
        tunnel.name,
        job.config,
        say=take_note,
        set_fwmark=lambda mark: _in_loop(loop, partial(tunnel.configure, DeviceChange(fwmark=mark))),
        close_interface=lambda: _in_loop(loop, tunnel.close),
        save=lambda: save_or_keep(tunnel.name, job.path, quick.config) if job.path else None,
    )
    floor = TimestampFloor(tunnel.device)
    floor.restore()
    tunnel.on_unanswered = floor.handshake
    former = FormerPeers(tunnel.name, tunnel.device, machine_clock)
    former.restore()
    living = loop.create_task(notifier.keep_alive())
    try:
        await uapi.start()  # first, so that `wgpy down` finds us while names are resolved
        if job.quick:
            await asyncio.to_thread(quick.clear_left)
        await _first_of(stopping.wait(), tunnel.start(up=job.quick))
        if stopping.is_set():
            return 0
        if metrics:
            await metrics.start()
        if job.quick:
            await asyncio.to_thread(quick.up, tunnel.endpoints())
        tunnel.follow_link()
        uapi.apply = Apply(tunnel, quick, steps)
        if waiting is not None:
            loop.remove_reader(waiting)
        if not stopping.is_set():
            ready(tunnel.name)
            notifier.say("READY=1")
        try:
            await _first_of(stopping.wait(), tunnel.wait_closed(), uapi.wait_removed())
        except TunError as error:
            if job.quick:
                raise
            log.info("(%s) %s", tunnel.name, error)  # `ip link delete` is how wg-quick takes a bare interface down
    finally:
        notifier.say("STOPPING=1")
        floor.save()
        former.save()
        if metrics:
            metrics.close()
        await asyncio.to_thread(quick.down)
        await uapi.close()  # PreDown may still ask
        tunnel.close()
        living.cancel()
    return 0


def _open_tun(job: Job) -> LinuxTun:
    offload = (job.offloads & job.config.offloads).tun
    if job.tun_fd is not None:
        return LinuxTun.adopt(job.tun_fd, offload=offload)
    if job.name in (existing for _, existing in socket.if_nameindex()):
        raise TunError(
            f"interface {job.name} already exists: `wgpy down {job.name}` if wgpy serves it, or choose another"
        )
    return LinuxTun.open(job.name, offload=offload)


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for one of them; raises what it raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*done)


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Have the loop's thread make a call, from the thread that takes wg-quick's steps, and wait for it."""

    async def made() -> None:
        call()

    asyncio.run_coroutine_threadsafe(made(), loop).result()


def say(step: str) -> None:
    """Show a step as wg-quick does, to whoever still listens."""
    with suppress(OSError):
        print(f"[#] {step}", file=sys.stderr, flush=True)


def start_in_background(job: Job, *, keep_output: bool = False) -> int:
    """Fork, and return in the parent once the child is up (0) or has failed and undone all (its exit status).

    From then on the child writes to its log file, or with `keep_output` to where its parent did.
    However the parent ends while it waits, the child undoes what it did. At SIGINT, SIGTERM and SIGHUP the parent waits
    for that, and then raises KeyboardInterrupt.
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
        name = made  # where the job's has a %d in it
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
    """From the terminal: its input, and its output to the log file of `name`, which only its owner may read."""
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


def stop(name: str) -> None:
    """End the daemon that serves `name` and show what it undoes; or clear away what a killed one left.

    Raises ControlError when there is neither.
    """
    try:
        pid = serving_pid(name)
    except ControlError as error:
        if is_served(name):  # and not ours to ask
            raise
        if stale := socket_path(name).exists():
            say(f"remove what a killed daemon left: {socket_path(name)}")
        if Leftovers(name).clear(say) or stale:
            for path in (socket_path(name), log_path(name)):
                path.unlink(missing_ok=True)
            return
        raise ControlError(
            f"{error}; {log_path(name)} says how it ended" if log_path(name).exists() else error
        ) from error
    process = os.pidfd_open(pid)
    try:
        with _log_from_now(name) as log_file:
            signal.pidfd_send_signal(process, signal.SIGTERM)
            ended = select.poll()  # select.select refuses descriptors from 1024 on
            ended.register(process, select.POLLIN)
            if not ended.poll(SILENCE * 1000):
                say(f"wait for process {pid} to end, {STOP_TIMEOUT} s at most{_hindrance(pid)}")
                if not ended.poll((STOP_TIMEOUT - SILENCE) * 1000):
                    raise ControlError(
                        f"process {pid} has not ended {STOP_TIMEOUT} s after SIGTERM{_hindrance(pid)}; "
                        f"{log_path(name)} may say why"
                    )
            sys.stderr.write(log_file.read())
    finally:
        os.close(process)


def _hindrance(pid: int) -> str:
    """What keeps a process from ending, and the remedy, where the process itself does not: proc_pid_stat(5)."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt":
            return f": it is stopped, and goes on after `kill -CONT {pid}`"
    return ""


def _log_from_now(name: str) -> IO[str]:
    """What the daemon will have logged by the time this is read, also when it has removed its log by then."""
    try:
        log_file = log_path(name).open(errors="replace")
    except OSError:
        return io.StringIO()
    log_file.seek(0, os.SEEK_END)
    return log_file
