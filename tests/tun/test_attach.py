"""Opening a TUN: names, refusals and their remedies, and how large super-packets may be for one system call."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

import pytest

from tests.support.netns import in_fresh_namespace
from wgpy.errors import TunError
from wgpy.system import refusals
from wgpy.tun import attach
from wgpy.tun.attach import super_packet_limit
from wgpy.tun.linux import LinuxTun


@pytest.mark.parametrize(("mtu", "segments"), [(1280, 49), (1420, 45), (1500, 42), (9000, 7)])
@pytest.mark.parametrize("headers", [52, 72])  # of IPv4 and IPv6, TCP with timestamps
def test_the_segments_of_a_super_packet_leave_in_one_sendmsg(mtu: int, segments: int, headers: int) -> None:
    # What the kernel's sk_setup_caps leaves of the limit, in whole segments (tcp_tso_autosize).
    for max_tcp_header in (272, 320):
        assert (super_packet_limit(mtu) - 1 - max_tcp_header) // (mtu - headers) == segments
    assert segments * (mtu + 32) <= 65507
    assert (segments + 1) * (mtu + 32) > 65507


@pytest.mark.parametrize("mtu", [576, 33000, 65535])
def test_no_limit_is_above_the_kernels(mtu: int) -> None:
    assert super_packet_limit(mtu) <= 65536


@pytest.mark.root
@in_fresh_namespace
def test_a_tun_without_offload_headers_is_used_without_them() -> None:
    """gVisor's answers EINVAL to IFF_VNET_HDR; here a wrapper does."""
    asked: list[int] = []

    def ioctl(fd: int, request: int, argument: Any) -> Any:
        if request == attach._TUNSETIFF:
            asked.append(attach.ifreq_flags.unpack(argument)[1] & attach.IFF_VNET_HDR)
            if asked[-1]:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return fcntl.ioctl(fd, request, argument)

    vars(attach)["ioctl"] = ioctl  # of this child process alone
    tun = LinuxTun.open("wgt0", offload=True)
    assert asked == [attach.IFF_VNET_HDR, 0]
    assert tun.super_packets == frozenset()
    assert tun.read() is None
    tun.close()


@pytest.mark.parametrize("name", ["", "a" * 16, "a/b", "a b", "a:b", ".", "..", "é" * 8])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(TunError, match="1 to 15 bytes"):
        LinuxTun.open(name)


def test_a_missing_device_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "TUN_PATH", "/dev/net/no-such-tun")
    monkeypatch.setattr(refusals, "in_container", lambda: False)
    with pytest.raises(TunError, match="modprobe tun"):
        LinuxTun.open()


@pytest.mark.root
@in_fresh_namespace
def test_a_name_pattern_gets_a_number_and_the_mtu_is_the_interfaces() -> None:
    tuns = [LinuxTun.open(), LinuxTun.open(), LinuxTun.open("other")]
    assert [tun.name for tun in tuns] == ["wg0", "wg1", "other"]
    assert {tun.mtu for tun in tuns} == {1420}
    for tun in tuns:
        tun.close()
    assert not os.path.exists("/sys/class/net/wg0") or LinuxTun.open("wg0").name == "wg0"


@pytest.mark.root
@in_fresh_namespace
def test_a_name_in_use_is_refused() -> None:
    tun = LinuxTun.open("wg0")
    with pytest.raises(TunError, match="in use by another program"):
        LinuxTun.open("wg0")
    tun.close()
    with pytest.raises(TunError, match="exists as something else"):
        LinuxTun.open("lo")


@pytest.mark.root
@in_fresh_namespace
def test_an_ordinary_user_is_told_what_is_missing() -> None:
    os.setgid(65534)
    os.setuid(65534)
    with pytest.raises(TunError, match="CAP_NET_ADMIN"):
        LinuxTun.open("wg0")
