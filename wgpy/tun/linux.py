"""The kernel's TUN device, /dev/net/tun, with super-packets in both directions where the kernel offers them.

The ioctls and flags are from linux/if_tun.h, the meanings of error numbers from drivers/net/tun.c.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from fcntl import ioctl
from time import monotonic
from typing import Final, Self

from wgpy.burst import Burst, ReadAhead, ViewCache
from wgpy.constants import MAX_DATAGRAM, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.errors import TunError
from wgpy.system import kernel, refusals
from wgpy.system.forks import abandon_in_child
from wgpy.tun.attach import IFF_NO_PI, IFF_TUN, IFF_VNET_HDR, attach
from wgpy.tun.gathering import Groups, append, has_room
from wgpy.tun.interface import limit_super_packets, look, mtu_of, name_and_flags
from wgpy.tun.merging import IoVector, merge
from wgpy.tun.splitting import SLOTS_SIZE, Segments, complete, in_place, split
from wgpy.tun.virtio import GSO_NONE, GSO_UDP_L4, MERGEABLE, NO_OFFLOAD, PLAIN, VNET_HEADER_SIZE, VnetHeader

_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO: Final = 0x02 | 0x04 | 0x08  # TSO4, TSO6, TSO_ECN
_TUN_F_USO: Final = 0x20 | 0x40  # USO4, USO6: Linux 6.2
_EBADFD: Final = 77  # the descriptor has lost its interface

_MAX_AHEAD: Final = 256  # packets that are read before the first of them is handed over

_SKIPS: Final = 16  # lone packets, after one that the kernel did not answer while it was written

_MAX_KEPT: Final = 1024  # lengths of lone packets whose bursts are kept, at 1,000 bytes each

_MAX_READ: Final = 65600  # an IPv6 packet of 40 + 65,535 bytes, rounded up to a multiple of 16

log: Final = logging.getLogger("wgpy.tun")


class LinuxTun:
    """A TUN interface of the kernel, non-blocking. Make one by `open` or `adopt`."""

    name: str
    """The interface's name when it was opened."""
    is_in_other_namespace: bool
    """Whether `link` last found the interface in another network namespace than ours."""
    bursts_at_once: int
    """How many bursts of a socket are written, some 0.3 ms each, before the other side and the timers have a turn."""
    is_dry: bool
    """Whether the last read brought a lone packet and most likely nothing waits behind it: if something does, the loop
    will call."""
    route_mtus: frozenset[int]
    """The MTUs in bytes of the routes into it that have one of their own, as `link` last found them; padding ends there
    after `mtu` is set again."""
    drops: Counter[str]
    """Packets lost: "malformed" super-packets that were read; packets not written because the interface was "down", its
    queue "full", or the kernel "refused" them."""

    def __init__(self, fd: int, name: str, merging: frozenset[int], *, vnet_header: bool) -> None:
        """Use `open` or `adopt`."""
        self.name = name
        self.is_in_other_namespace = False
        self.bursts_at_once = 1  # with 4, a ping under load took half as long again, and the throughput was the same
        self.is_dry = False
        self.drops = Counter()
        self._fd = fd
        self._vnet_header = vnet_header
        self._merging = merging
        self._header = bytearray(VNET_HEADER_SIZE)
        self._last_header, self._unpacked = PLAIN, NO_OFFLOAD  # most headers are as the one before
        self._groups = Groups(MAX_DATAGRAM + _MAX_READ + TRANSPORT_OVERHEAD)
        self._cache = self._groups.reading  # lone packets stay where they are read
        self._buffer = self._cache.buffer
        self._first = self._parts(TRANSPORT_HEADER_SIZE)
        self._alone: dict[int, Burst] = {}  # what a lone packet becomes, by its length
        self._slots = ViewCache(memoryview(bytearray(SLOTS_SIZE if vnet_header else 0)))
        self._read_ahead = ReadAhead()
        self._held: tuple[VnetHeader, int, int] | None = None  # read already: its header, where it lies, its length
        self._gathered: list[Burst] = []  # read already, the next one last
        self._wrote_lone = False
        self._found = False  # something, since `flush` began to look for an answer
        self._skips = 0  # lone packets whose answers `flush` does not look for
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callback: Callable[[], None] | None = None
        self._mtu = 0
        self.route_mtus = frozenset[int]()
        self.mtu = mtu_of(name)
        abandon_in_child(self)

    @property
    def mtu(self) -> int:
        """The largest packet in bytes; padding ends there. Set it to what `link` returns."""
        return self._mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        changed = mtu != self._mtu
        self._mtu = mtu
        self._mtus = tuple(sorted({mtu, *self.route_mtus} - {0}))
        self._alone.clear()
        if changed and self._merging:
            limit_super_packets(self._fd, mtu)

    @classmethod
    def open(cls, name: str = "wg%d", *, offload: bool = True) -> Self:
        """Create the interface, or attach to an idle one; "%d" in the name becomes the first free number.

        Without `offload`, packets are read and written one by one. Raises TunError, with a remedy.
        """
        offload = offload and kernel.permitted().tun
        check_name(name)
        try:
            fd = attach(name, offload=offload)
        except OSError as error:
            raise TunError(_why_not(name, error)) from error
        try:
            return cls.adopt(fd, offload=offload)
        except TunError:
            os.close(fd)
            raise

    @classmethod
    def open_queues(cls, name: str, count: int, *, offload: bool = True) -> list[int]:
        """As `open`, but file descriptors of `count` queues, each for `adopt`, perhaps in a process of its own.

        A packet waits in the queue that last wrote a packet of its flow in the other direction, and a new flow's in any
        (kernel tun.c, tun_automq_select_queue). An interface that exists already must have been made with
        `multi_queue`. Raises TunError, with a remedy.
        """
        offload = offload and kernel.permitted().tun
        check_name(name)
        queues: list[int] = []
        try:
            while len(queues) < count:
                queues.append(attach(name, offload=offload, multi_queue=True))
                name, _ = name_and_flags(queues[0])
        except OSError as error:
            for fd in queues:
                os.close(fd)
            if error.errno != errno.EINVAL:
                raise TunError(_why_not(name, error)) from error
            raise TunError(
                f"{name} exists with a single queue, or as something else: use one worker, or make the interface by"
                f" `ip tuntap add {name} mode tun multi_queue`"
            ) from error
        return queues

    @classmethod
    def adopt(cls, fd: int, *, offload: bool = True, release: str | None = None) -> Self:
        """Take over a file descriptor that is attached to a TUN interface; `close` will close it.

        `release` is the kernel's, by default this one's. Raises TunError, and leaves the descriptor open, if it is not
        attached to a TUN interface.
        """
        try:
            name, flags = name_and_flags(fd)
            if not flags & IFF_TUN or not flags & IFF_NO_PI:
                raise TunError(f"file descriptor {fd} is not a TUN with IFF_NO_PI: open it with IFF_TUN | IFF_NO_PI")
            vnet_header = bool(flags & IFF_VNET_HDR)
            if vnet_header:
                ioctl(fd, _TUNSETVNETHDRSZ, VNET_HEADER_SIZE.to_bytes(4, sys.byteorder))
            wanted = offload and kernel.permitted().tun
            merging = _set_offloads(fd, wanted=wanted) if vnet_header else frozenset[int]()
            if kernel.mangles_udp_gso(release or kernel.release()):  # it may forward what we write to a network card
                merging -= {GSO_UDP_L4}
            os.set_blocking(fd, False)
        except TunError:
            raise
        except OSError as error:
            raise TunError(f"file descriptor {fd} is not a TUN interface's: {error.strerror}") from error
        return cls(fd, name, merging, vnet_header=vnet_header)

    def fileno(self) -> int:
        """The file descriptor; -1 once closed."""
        return self._fd

    @property
    def super_packets(self) -> frozenset[int]:
        """The GSO types that may be written; none without offloads."""
        return self._merging

    def read(self) -> Burst | None:
        """The segments of a super-packet, or lone packets that can be sent together; None if nothing waits.

        The burst is valid until the next read. Raises TunError if the interface went away.
        """
        while True:
            if self._gathered:
                return self._gathered.pop()
            read = self._move_up(self._held) if self._held else self._read_into(self._first)
            if read is None:
                return None
            header, length = read
            self.is_dry, self._found = False, True
            if header is NO_OFFLOAD or header.gso_type == GSO_NONE:
                burst = self._alone.get(length)
                if burst is None:
                    burst = self._keep(length)
                if burst is not None and header is not NO_OFFLOAD and not complete(header, burst):
                    burst = None
                if burst is not None and self._merging:
                    if self._read_ahead.looks_for_more(monotonic()):
                        burst = self._gather(NO_OFFLOAD, burst.packet(0), burst.stride) or burst
                    else:
                        self.is_dry = True
            else:
                burst, packet = None, self._buffer[TRANSPORT_HEADER_SIZE : TRANSPORT_HEADER_SIZE + length]
                if self._merging and has_room(length) and (segments := Segments.of(header, packet)):
                    burst = self._gather(header, packet, segments.pieces * segments.stride(self._mtus))
                if burst is None:
                    burst = split(header, packet, self._slots, self._mtus)
                    if burst is not None and self._merging and not has_room(len(burst.view)):
                        self._take_along(burst)
            if burst is not None:
                return burst
            self.drops["malformed"] += 1

    def _keep(self, length: int) -> Burst | None:
        """The burst of a lone packet, kept for the next one that is as long."""
        burst = in_place(length, self._cache, self._mtus)
        if burst is not None:
            if len(self._alone) >= _MAX_KEPT:
                self._alone.clear()
            self._alone[length] = burst
        return burst

    def _read_at(self, start: int) -> tuple[VnetHeader, memoryview] | None:
        """Read one packet into the buffer at `start`, behind the first."""
        if (read := self._read_into(self._parts(start))) is None:
            return None
        header, length = read
        return header, self._buffer[start : start + length]

    def _read_into(self, parts: tuple[bytearray | memoryview, ...]) -> tuple[VnetHeader, int] | None:
        """Read one packet: its header and its length."""
        try:
            length = os.readv(self._fd, parts)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._gone(error) from error
        if not self._vnet_header:
            return NO_OFFLOAD, length
        if self._header != self._last_header:
            self._last_header = bytes(self._header)
            self._unpacked = NO_OFFLOAD if self._last_header == PLAIN else VnetHeader.unpack(self._last_header)
        return self._unpacked, length - VNET_HEADER_SIZE

    def _parts(self, start: int) -> tuple[bytearray | memoryview, ...]:
        packet = self._buffer[start : start + _MAX_READ]
        return (self._header, packet) if self._vnet_header else (packet,)

    def _move_up(self, held: tuple[VnetHeader, int, int]) -> tuple[VnetHeader, int]:
        """Move what was held to where a first read lies, as more may be read behind it: its header and its length."""
        self._held = None
        header, start, length = held
        if start != TRANSPORT_HEADER_SIZE:
            self._buffer[TRANSPORT_HEADER_SIZE : TRANSPORT_HEADER_SIZE + length] = self._buffer[start : start + length]
        return header, length

    def _gather(self, header: VnetHeader, packet: memoryview, size: int) -> Burst | None:
        """Read more, and put it together by destination; a packet then costs a third of a lone one.

        `header` and `packet` are what was read first, which takes `size` bytes of slots. Returns the first burst, and
        keeps the others for the next calls of `read`; None if nothing waits, or there is no room beside the first. The
        first read that cannot be put to the others of its destination is held.
        """
        if not has_room(size):
            return None
        start = size + TRANSPORT_HEADER_SIZE
        read = self._read_at(start)
        self.is_dry = read is None and header.gso_type == GSO_NONE
        self._read_ahead.looked(was_alone=self.is_dry)
        if read is None:
            return None
        groups, mtus, ahead = self._groups, self._mtus, 0
        group = groups.begin(header, packet, mtus)
        while read is not None:
            taken = groups.take(*read, mtus)
            if not taken:
                self._held = read[0], start, len(read[1])
                break
            ahead, start = ahead + taken, group.at
            read = self._read_at(start) if ahead < _MAX_AHEAD else None
        self._gathered = groups.bursts(mtus)
        return self._gathered.pop()

    def _take_along(self, burst: Burst) -> None:
        """Read what waits behind a long super-packet, as far as it can join its burst (`append`).

        Stages that take turns for each super-packet push one another's code out of the processor's caches; and an
        acknowledgement of the other direction, if it is all that waits, needs no send and no receipt of its own.
        """
        while burst.lengths[-1] == burst.lengths[0] and (read := self._read_into(self._first)) is not None:
            header, length = read
            at = TRANSPORT_HEADER_SIZE
            if not append(burst, header, self._buffer[at : at + length], self._mtus):
                self._held = header, at, length
                return

    def write(self, burst: Burst) -> None:
        """Deliver a burst, merged into as few writes as possible.

        Packets that the kernel does not take are counted in `drops`. Raises TunError if the interface went away.
        """
        lengths = burst.lengths
        if len(lengths) == 1:
            self._wrote_lone = True
            if failure := self._write([PLAIN, burst.alone()]):
                self._count(failure, 1)
            return
        for parts, slots in merge(burst, self._merging):
            failure = self._write(parts)
            if len(slots) > 1 and failure in (errno.EINVAL, errno.EIO):
                self._write_apart([burst.packet(i) for i in slots], VnetHeader.unpack(parts[0]), failure)
            elif failure:
                self._count(failure, len(slots))

    def flush(self) -> None:
        """Read what the kernel has answered to a lone packet while that was written, as it answers a ping.

        This is sooner than the loop would call. After a packet without such an answer, the next ones are not tried.
        """
        if not self._wrote_lone:
            return
        self._wrote_lone = False
        if self._skips:
            self._skips -= 1
            return
        self._skips, self._found = _SKIPS, False
        self._readable()
        if self._found:
            self._skips = 0

    def _write_apart(self, packets: list[memoryview], header: VnetHeader, failure: int) -> None:
        """Write a refused super-packet's packets one by one; if the kernel takes them, make no more of its kind.

        Some kernels refuse what others take: Linux 6.6.44 answered EINVAL to UDP super-packets with a short tail.
        """
        taken = 0
        for packet in packets:
            again = self._write([PLAIN, packet])
            if again:
                self._count(again, 1)
            else:
                taken += 1
        if taken and header.gso_type in self._merging:
            self._merging -= {header.gso_type}
            log.warning(
                "(%s) the kernel refuses super-packets of type %d (%s); packets are written one by one from now on",
                self.name,
                header.gso_type,
                os.strerror(failure),
            )

    def _write(self, parts: IoVector) -> int:
        """Write once. Returns 0, or the errno if the kernel did not take it."""
        try:
            os.writev(self._fd, parts if self._vnet_header else parts[1:])
        except OSError as error:
            if error.errno in (_EBADFD, errno.ENODEV, errno.EBADF):
                raise self._gone(error) from error
            return error.errno or errno.EIO
        return 0

    def _count(self, failure: int, packets: int) -> None:
        self.drops[_DROPS.get(failure, "refused")] += packets

    def _gone(self, error: OSError) -> TunError:
        return TunError(f"the interface went away ({error.strerror})")

    def link(self) -> tuple[bool, int] | None:
        """Whether the interface is up, and its MTU in bytes; None if we may not look where it is.

        It takes time if there are very many routes. Raises TunError if the interface went away.
        """
        try:
            found = look(self._fd)
        except OSError as error:
            raise self._gone(error) from error
        self.is_in_other_namespace = found.is_in_other_namespace
        if found.mtu is None:
            return None
        self.route_mtus = found.route_mtus
        return found.is_up, found.mtu

    def start_reading(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        """Have the loop call `callback` while there is something to read."""
        self.stop_reading()
        self._loop, self._callback = loop, callback
        loop.add_reader(self._fd, self._readable)
        if self._is_ahead:
            loop.call_soon(self._readable)

    @property
    def _is_ahead(self) -> bool:
        """Whether something is read already: the kernel knows nothing of it, so the loop would not call."""
        return bool(self._held or self._gathered)

    def _readable(self) -> None:
        if self._callback is not None:
            self._callback()
        if self._is_ahead and self._loop is not None:
            self._loop.call_soon(self._readable)

    def stop_reading(self) -> None:
        """Call `callback` no more; packets wait in the interface's queue."""
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = self._callback = None

    def close(self) -> None:
        """Close the descriptor; unless the interface is persistent, it disappears."""
        self.stop_reading()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def abandon(self) -> None:
        """In a forked child, close this copy and nothing else. The parent carries on."""
        self._loop = self._callback = None
        self.close()


_DROPS: Final = {errno.EIO: "down", errno.EAGAIN: "full", errno.ENOBUFS: "full", errno.ENOMEM: "full"}


def _set_offloads(fd: int, *, wanted: bool) -> frozenset[int]:
    """Switch super-packets on if they are wanted; returns the GSO types that the kernel takes, which may be none."""
    if wanted:
        tcp = _TUN_F_CSUM | _TUN_F_TSO
        for flags, kinds in ((tcp | _TUN_F_USO, MERGEABLE), (tcp, MERGEABLE - {GSO_UDP_L4})):
            try:
                ioctl(fd, _TUNSETOFFLOAD, flags)
            except OSError:
                continue
            return kinds
    ioctl(fd, _TUNSETOFFLOAD, 0)
    return frozenset()


def check_name(name: str) -> None:
    """Raise TunError for a name that Linux does not allow for an interface (dev_valid_name)."""
    if not 0 < len(name.encode()) < 16 or name in (".", "..") or any(c in "/:" or c.isspace() for c in name):
        raise TunError(f"{name!r} cannot be an interface's name: use 1 to 15 bytes without '/', ':' and spaces")


def _why_not(name: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return refusals.explain(
            refusals.tun(error.errno), *((refusals.net_admin(),) if refusals.has_net_admin() is False else ())
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"{name} cannot be created: {refusals.explain(refusals.net_admin(), *refusals.tun_device())}"
    if error.errno == errno.EBUSY:
        return f"{name} is in use by another program: stop that one, or choose another name"
    if error.errno == errno.EINVAL:
        return f"{name} cannot be a TUN interface: it exists as something else, or the name is bad; choose another name"
    return f"{name} cannot be opened: {error.strerror}"
