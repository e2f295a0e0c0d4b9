"""How large super-packets may be, for the segments of each to leave in one system call."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

import pytest

from tests.support.netns import in_fresh_namespace
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
def test_a_tun_that_has_no_headers_of_offloads_is_taken_without() -> None:
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
