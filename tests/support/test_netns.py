"""The namespace helper itself: a failing body must fail, and a cable must carry."""

from __future__ import annotations

import socket

import pytest

from tests.support.netns import Namespace, in_fresh_namespace, veth_pair

pytestmark = pytest.mark.root


@in_fresh_namespace
def test_fresh_namespace_has_only_loopback() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


def test_failure_and_skip_inside_reach_the_caller() -> None:
    def fail() -> None:
        raise AssertionError("seen")

    with pytest.raises(pytest.fail.Exception, match="AssertionError: seen"):
        in_fresh_namespace(fail)()
    with pytest.raises(pytest.skip.Exception, match="not here"):
        in_fresh_namespace(lambda: pytest.skip("not here"))()


def test_veth_pair_carries_both_families() -> None:
    with Namespace() as a, Namespace() as b:
        veth_pair(a, b, (["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"]))
        a.run("ping", "-c1", "-W2", "10.9.0.2")
        b.run("ping", "-c1", "-W2", "fd09::1")

        def names() -> None:
            assert "veth0" in [name for _, name in socket.if_nameindex()]

        a.call(names)
        with b.udp_socket() as sock:
            sock.bind(("10.9.0.2", 0))
        assert "veth0" not in [name for _, name in socket.if_nameindex()]  # this process stayed outside
        sleeper = b.popen("sleep", "60")
    assert sleeper.poll() is not None
