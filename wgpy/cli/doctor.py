"""`wgpy doctor`: finds out what works on this machine by trying it.

A probe opens, binds or requests what a tunnel would and releases it at once. It changes nothing that others could see.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from struct import pack
from typing import Any, Final, Literal

import wgpy
from wgpy.daemon import uapi_client
from wgpy.errors import NamespaceError, NetworkError, SocketError, TunError
from wgpy.system import refusals

_DEVICES: Final = Path("/sys/class/net")
_SYSCTL: Final = Path("/proc/sys/net")
_CLOCK_TOLERANCE: Final = 3600.0  # seconds; the times we compare with may be slightly in the future


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found. `fail` means that no tunnel can work, `warn` that something does not work or is slower."""

    name: str
    status: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:<4}  {self.name}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    doctor = verbs.add_parser(
        "doctor",
        help="show what works on this machine, and how to fix what does not",
        description="Try everything that a tunnel needs, and print for each whether it works: ok, warn or fail, with a "
        "remedy. Nothing is left behind. The last lines are about each way to run a tunnel: the daemon, the commands "
        "without root, the library. The exit status is 1 only if no tunnel can work at all for the current user.",
        epilog="Run it as the user that will run the tunnel; for the daemon: sudo wgpy doctor.",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON: a list of findings")
    doctor.set_defaults(call=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    findings = list(examine())
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(*findings, sep="\n")
    return int(any(finding.status == "fail" for finding in findings))


def examine() -> Iterator[Finding]:
    """All findings, each after those it depends on. Never raises."""
    for remembered in (_found, _why_no_namespace):
        remembered.cache_clear()
    for probe in PROBES:
        yield from _found(probe)


def _name(probe: Callable[[str], Iterator[Finding]]) -> str:
    return probe.__name__.strip("_").replace("_", " ")


@cache
def _found(probe: Callable[[str], Iterator[Finding]]) -> list[Finding]:
    name = _name(probe)
    findings: list[Finding] = []
    try:
        findings.extend(probe(name))
    except Exception as error:  # whatever goes wrong here, the other probes are still useful
        findings.append(Finding(name, "warn", f"cannot be determined: {type(error).__name__}: {error}"))
    return findings


def _packages(name: str) -> Iterator[Finding]:
    broken = []
    for package in ("cryptography.hazmat.primitives.ciphers.aead", "nacl.bindings", "pyroute2", "numpy"):
        try:
            import_module(package)
        except Exception as error:  # a broken binary may raise anything
            broken.append(f"{package.partition('.')[0]} ({error})")
    if broken:
        yield Finding(name, "fail", f"cannot be imported: {', '.join(broken)}", "install wgpy again, with pip")
    else:
        yield Finding(name, "ok", "cryptography, PyNaCl, pyroute2 and numpy can be imported")


def _privilege(name: str) -> Iterator[Finding]:
    held = refusals.has_net_admin()
    if held:
        yield Finding(name, "ok", "we have CAP_NET_ADMIN")
    elif held is None:
        yield Finding(name, "ok", "unknown without /proc; see tun and netlink below")
    else:
        said = f"the host's interfaces cannot be made or configured: {refusals.explain(refusals.net_admin())}"
        yield Finding(name, "warn", said)


def _without_root(name: str) -> Iterator[Finding]:
    """Which network `wgpy.connect`, proxy, forward and stdio use, and whether exec works."""
    if reason := _why_no_namespace():
        yield Finding(name, "warn", f"tunnels use wgpy's own TCP/IP stack, because no namespace can be made: {reason}")
    else:
        yield Finding(name, "ok", "tunnels use the kernel's TCP/IP, in a namespace of their own")


@cache
def _why_no_namespace() -> str:
    """Why a tunnel may not have a network namespace of its own; empty if it may."""
    from wgpy.namespace.client import Helper, HelperProcess

    async def try_it() -> None:
        helper = Helper(HelperProcess())
        try:
            for fd in await helper.ask("open", "wgpydoctor", True):
                os.close(fd)
        finally:
            helper.close()

    try:
        asyncio.run(try_it())
    except NamespaceError as error:
        return str(error)
    return ""


def _as_root(remedy: str) -> str:
    """A remedy, and for users other than root the alternative to run as root."""
    return f"{remedy}, or run as root" if os.geteuid() else remedy


def _tun(name: str) -> Iterator[Finding]:
    """Make and configure an interface, which is deleted when it is closed. It is never brought up."""
    from wgpy.constants import TUN_PATH
    from wgpy.net.netlink import Netlink
    from wgpy.system import kernel
    from wgpy.tun.linux import LinuxTun
    from wgpy.tun.virtio import GSO_TCPV4, GSO_UDP_L4

    try:
        tun = LinuxTun.open("wgpydoctor%d")
    except TunError as error:
        yield Finding(name, "warn", str(error))
        return
    try:
        yield Finding(name, "ok", f"interfaces can be made with {TUN_PATH}")
        for offload, kind, since in (("TSO", GSO_TCPV4, "2.6.27"), ("USO", GSO_UDP_L4, "6.2")):
            if kind in tun.super_packets:
                yield Finding(f"{name} {offload}", "ok", "the kernel supports super-packets")
                continue
            remedy = f"use Linux {since} or later"
            if not kernel.permitted().tun:
                remedy = f"unset {kernel.NO_TUN_OFFLOAD}"
            elif kind == GSO_UDP_L4 and kernel.mangles_udp_gso(kernel.release()):
                remedy = "this kernel may mangle them: use Linux 7.1.5 or later"
            yield Finding(f"{name} {offload}", "warn", "no super-packets, which is slower", remedy)
        with Netlink() as netlink:
            netlink.set_mtu(tun.name, 1420)
            netlink.unused_table()
        yield Finding("netlink", "ok", "links can be configured, and routing tables read")
    except NetworkError as error:
        yield Finding("netlink", "warn", str(error))
    finally:
        tun.close()


def _uapi_sockets(name: str) -> Iterator[Finding]:
    directory = uapi_client.DIRECTORY
    made = not directory.exists()
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = directory / f".doctor-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.unlink()
        if made:
            directory.rmdir()
    except OSError as error:
        said = f"sockets cannot be made in {directory}: {error.strerror}"
        yield Finding(name, "warn", said, _as_root("make it writable"))
    else:
        yield Finding(name, "ok", f"{directory} is writable")


def _udp(name: str) -> Iterator[Finding]:
    from wgpy.net.binding import BUFFER_SIZE
    from wgpy.net.udp import UdpSockets

    try:
        udp = UdpSockets.open()
    except SocketError as error:
        yield Finding(name, "fail", str(error))
        return
    try:
        families = {sock.family for sock in udp.sockets}
        yield Finding(name, "ok", "ports can be bound")
        if len(udp.sockets) > len(families):
            yield Finding("udp queues", "ok", "datagrams of peers are queued apart from those of strangers")
        else:
            said = "the kernel cannot sort datagrams: a flood from strangers would displace those of peers"
            yield Finding("udp queues", "warn", said, "use a kernel with SO_ATTACH_REUSEPORT_CBPF (Linux 4.5 or later)")
        if socket.AF_INET not in families:
            yield Finding("IPv4", "warn", "not supported by the system: only peers with IPv6 endpoints can be reached")
        disabled = _sysctl("ipv6/conf/all/disable_ipv6")
        if socket.AF_INET6 not in families or disabled == "1":
            remedy = "sysctl net.ipv6.conf.all.disable_ipv6=0" if disabled else "boot without ipv6.disable=1"
            yield Finding("IPv6", "warn", "disabled: IPv6 addresses and endpoints will fail", remedy)
        else:
            yield Finding("IPv6", "ok", "enabled")
        for option, direction, limit in (
            (socket.SO_RCVBUF, "receiving", "net.core.rmem_max"),
            (socket.SO_SNDBUF, "sending", "net.core.wmem_max"),
        ):
            # The kernel doubles the size it is asked for, and returns the double (socket(7)).
            size = max(
                sock.getsockopt(socket.SOL_SOCKET, option) // 2 for sock in udp.sockets
            )  # of the sockets for data
            if size < BUFFER_SIZE:
                said = f"{size} bytes for {direction}: bursts may be lost"
                yield Finding("socket buffers", "warn", said, _as_root(f"sysctl {limit}={BUFFER_SIZE}"))
            else:
                yield Finding("socket buffers", "ok", f"{size} bytes for {direction}")
    finally:
        udp.close()


def _workers(name: str) -> Iterator[Finding]:
    """Among how many processes an interface's peers can be divided."""
    from wgpy.tun.linux import LinuxTun
    from wgpy.workers.count import MOST_BY_ITSELF, number_of_workers, why_one

    number = number_of_workers("auto", MOST_BY_ITSELF)
    if _found(_tun)[0].status != "ok":
        return
    if number == 1:
        yield Finding(name, "ok", "one process for all peers, because it may use one core")
        return
    why = why_one(number)
    try:
        for fd in () if why else LinuxTun.open_queues("wgpydoctor%d", number):
            os.close(fd)
    except TunError as error:
        why = str(error)
    if why:
        yield Finding(name, "warn", f"one process for all peers, whatever the number of cores: {why}")
    else:
        yield Finding(name, "ok", f"many peers can be divided among {number} processes, one for each core")


def _udp_offload(name: str) -> Iterator[Finding]:
    """Send two datagrams over loopback in one call, and see whether one call receives both."""
    from wgpy.net.binding import UDP_GRO
    from wgpy.net.sending import UDP_SEGMENT
    from wgpy.system import kernel

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(1.0)
        with suppress(OSError):
            receiver.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        try:
            sender.sendmsg([bytes(200)], [(socket.SOL_UDP, UDP_SEGMENT, pack("=H", 100))], 0, receiver.getsockname())
            received = len(receiver.recv(1000))
        except OSError as error:
            absent = error.errno in (errno.EINVAL, errno.EIO, errno.EOPNOTSUPP)
            remedy = "use Linux 4.18 or later" if absent else "ip link set lo up"
            yield Finding(
                "UDP GSO", "warn", f"datagrams are sent one by one, which is slower: {error.strerror or error}", remedy
            )
            return
    one_by_one = "not used: datagrams are sent one by one, which is slower"
    if not kernel.permitted().udp_gso:
        yield Finding("UDP GSO", "warn", one_by_one, f"unset {kernel.NO_UDP_GSO}")
    elif kernel.mangles_udp_gso(kernel.release()):
        yield Finding(
            "UDP GSO", "warn", f"{one_by_one}, because this kernel may mangle them", "use Linux 7.1.5 or later"
        )
    elif _has_virtual_card():
        remedy = "if peers get only a few Mbit/s, the host's kernel may mangle them: use --no-udp-gso"
        yield Finding("UDP GSO", "ok", "one call sends a burst", remedy)
    else:
        yield Finding("UDP GSO", "ok", "one call sends a burst")
    if received == 200:
        yield Finding("UDP GRO", "ok", "one call receives a burst")
    else:
        yield Finding("UDP GRO", "warn", "datagrams arrive one by one, which is slower", "use Linux 5.0 or later")


def _has_virtual_card() -> bool:
    """Whether there is a virtio network card: it leaves segmentation to the host, whose kernel we cannot see."""
    return any(driver.resolve().name == "virtio_net" for driver in _DEVICES.glob("*/device/driver"))


def _event_loop(name: str) -> Iterator[Finding]:
    try:
        import uvloop

        uvloop.new_event_loop().close()
    except Exception as error:  # a broken binary may raise anything
        yield Finding(
            name,
            "warn",
            f"uvloop does not work ({error}): asyncio's own loop is used, which is slower",
            "pip install uvloop",
        )
    else:
        yield Finding(name, "ok", f"uvloop {version('uvloop')}")


def _clock(name: str) -> Iterator[Finding]:
    """Check that the wall clock, whose time is in handshakes, is not earlier than times that are surely past."""
    from wgpy.daemon import timestamp

    past = Path(wgpy.__file__).stat().st_mtime
    with suppress(OSError, ValueError):
        past = max(past, int(timestamp.FLOOR_FILE.read_text()) / 1e9)
    time.clock_gettime(time.CLOCK_BOOTTIME)
    if (behind := past - time.time()) > _CLOCK_TOLERANCE:
        said = f"at least {behind:.0f} s behind: peers would refuse handshakes, so these get later timestamps"
        yield Finding(name, "warn", said, "set the clock, or use NTP: timedatectl set-ntp true")
    else:
        yield Finding(name, "ok", "not behind the latest handshake that was sent")


def _timestamps(name: str) -> Iterator[Finding]:
    from wgpy.daemon import timestamp

    directory = timestamp.FLOOR_FILE.parent
    known = next(path for path in (directory, *directory.parents) if path.exists())
    if os.access(known, os.W_OK, effective_ids=True):
        yield Finding(name, "ok", f"the latest one is stored in {directory}")
    else:
        said = f"{known} is not writable: after a restart with a slow clock, peers would refuse handshakes"
        yield Finding(name, "warn", said, _as_root("make /var/lib writable"))


def _firewall(name: str) -> Iterator[Finding]:
    """Look for nft, and if it is missing or fails, for iptables."""
    from wgpy.daemon import firewall

    tool, wrong = firewall.find_tool()
    if tool:
        yield Finding(name, "ok", f"{tool} works" + (f" ({wrong})" if wrong else ""))
        return
    remedy = "run as root" if "not permitted" in wrong and os.geteuid() else "install nftables"
    yield Finding(name, "warn", f"full tunnels are not protected against spoofed packets: {wrong}", remedy)


def _DNS(name: str) -> Iterator[Finding]:
    from wgpy.daemon import dns

    if tools := dns.tools():
        yield Finding(name, "ok", f"{tools[0]} can set it")
    else:
        said = "neither systemd-resolved nor resolvconf is installed: interfaces with DNS will not come up"
        yield Finding(name, "warn", said, "install openresolv or systemd-resolved")


def _full_tunnels(name: str) -> Iterator[Finding]:
    """Check src_valid_mark: strict reverse path filtering drops replies unless it is 1 (the kernel's ip-sysctl)."""
    marked = _sysctl("ipv4/conf/all/src_valid_mark") == "1"
    strict = max(_sysctl("ipv4/conf/all/rp_filter"), _sysctl("ipv4/conf/default/rp_filter")) == "1"
    try:
        with (_SYSCTL / "ipv4/conf/all/src_valid_mark").open("r+"):
            writable = True
    except OSError:
        writable = False
    if marked or writable:
        yield Finding(name, "ok", f"src_valid_mark is {'1' if marked else 'writable'}{', rp_filter strict' * strict}")
    else:
        said = "src_valid_mark is 0 and not writable"
        said += (
            ", and rp_filter is strict: IPv4 replies will be dropped"
            if strict
            else ", which is harmless unless rp_filter is strict"
        )
        yield Finding(
            name,
            "warn" if strict else "ok",
            said,
            "sysctl net.ipv4.conf.all.src_valid_mark=1 on the host (docker run --sysctl)" if strict else "",
        )


def _daemon(name: str) -> Iterator[Finding]:
    yield _mode(name, "wgpy up, run and serve", _packages, _privilege, _tun, _uapi_sockets, _udp)


def _commands_without_root(name: str) -> Iterator[Finding]:
    yield _on_either_network(
        name, "wgpy exec, proxy, forward and stdio", "wgpy proxy, forward and stdio", ": exec does not"
    )


def _library(name: str) -> Iterator[Finding]:
    connect = _on_either_network(name, "wgpy.connect and wgpy.blocking", "wgpy.connect and wgpy.blocking", "")
    if connect.status != "ok" and _mode(name, "", _packages).status == "ok":
        connect = replace(connect, message=f"{connect.message}; wgpy.Device and wgpy.MemoryTun work")
    yield connect


def _on_either_network(name: str, all_of_it: str, on_the_stack: str, but: str) -> Finding:
    """Whether a way to run a tunnel works in a namespace, or else what of it works on wgpy's own stack."""
    found = _mode(name, all_of_it, _packages, _udp)
    if found.status == "ok" and _why_no_namespace():
        return replace(found, status="warn" if but else "ok", message=f"{on_the_stack} work, on wgpy's own stack{but}")
    return found


def _mode(name: str, what: str, *needs: Callable[[str], Iterator[Finding]]) -> Finding:
    """Whether one way to run a tunnel works, or else the first reason why it does not."""
    for probe in needs:
        # Findings of other names say only how well it works.
        for finding in _found(probe):
            if finding.status != "ok" and finding.name in (_name(probe), "netlink"):
                return replace(finding, name=name, status="warn", message=f"{what} do not work: {finding.message}")
    return Finding(name, "ok", f"{what} work")


def _kernel_module(name: str) -> Iterator[Finding]:
    modules = Path("/lib/modules") / os.uname().release
    listed = any(
        "/wireguard.ko" in (modules / index).read_text(errors="replace")
        for index in ("modules.dep", "modules.builtin")
        if (modules / index).exists()
    )
    if Path("/sys/module/wireguard").exists() or listed:
        yield Finding(name, "ok", "the kernel has WireGuard, which is faster, and which wg-quick prefers to wgpy")
    else:
        yield Finding(name, "ok", "the kernel has no WireGuard: use wgpy, or wg-quick with wgpy")


def _programs(name: str) -> Iterator[Finding]:
    for program, without in (
        ("bash", "hooks cannot run"),
        ("wg", "hooks and scripts that call it fail; wgpy's own commands can do the same"),
        ("wg-quick", "wgpy up and down can do the same"),
    ):
        if path := shutil.which(program):
            yield Finding(program, "ok", path)
        else:
            package = "bash" if program == "bash" else "wireguard-tools"
            yield Finding(program, "warn", f"not found: {without}", f"install {package}")


def _sysctl(name: str) -> str:
    """The value of a sysctl; empty if the system does not have it."""
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return ""


PROBES: Final[tuple[Callable[[str], Iterator[Finding]], ...]] = (
    _packages,
    _privilege,
    _without_root,
    _tun,
    _uapi_sockets,
    _udp,
    _workers,
    _udp_offload,
    _event_loop,
    _clock,
    _timestamps,
    _full_tunnels,
    _firewall,
    _DNS,
    _kernel_module,
    _programs,
    _daemon,
    _commands_without_root,
    _library,
)
