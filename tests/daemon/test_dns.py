"""DNS by the system's tools: stand-ins on PATH record how they are called."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.tools import Tools
from wgpy.daemon import dns
from wgpy.daemon.dns import set_dns, unset_dns
from wgpy.errors import NetworkError

SERVERS = [ip_address("10.0.0.53"), ip_address("fd00::53")]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", os.fspath(directory))
    monkeypatch.setattr(dns, "_INTERFACE_ORDER", tmp_path / "interface-order")
    monkeypatch.setattr(dns, "_set_by", {})
    return Tools(directory)


def test_resolved_is_used_where_it_runs(tools: Tools) -> None:
    for name in ("systemctl", "resolvectl", "resolvconf"):
        tools.add(name)
    set_dns("wg0", SERVERS, ["example.org", "example.net"])
    unset_dns("wg0")
    assert [call for call in tools.calls() if not call.startswith("systemctl")] == [
        "resolvectl dns wg0 10.0.0.53 fd00::53",
        "resolvectl domain wg0 example.org example.net ~.",
        "resolvectl revert wg0",
    ]


def test_resolvconf_takes_over_where_resolved_is_not_running(tools: Tools) -> None:
    tools.add("systemctl", "exit 3")
    tools.add("resolvectl")
    tools.add("resolvconf")
    set_dns("wg0", SERVERS, ["example.org", "example.net"])
    unset_dns("wg0")
    assert [call for call in tools.calls() if not call.startswith("systemctl")] == [
        "resolvconf -a wg0 -m 0 -x",
        "< nameserver 10.0.0.53",
        "< nameserver fd00::53",
        "< search example.org example.net",
        "resolvconf -d wg0 -f",
    ]


def test_what_resolvconf_writes_is_world_readable_whatever_the_umask(tools: Tools) -> None:
    """The units have umask 0077, and Debian's resolvconf keeps its parent's umask."""
    tools.add("resolvconf", f"umask >>{tools.log}")
    before = os.umask(0o077)
    try:
        set_dns("wg0", SERVERS)
    finally:
        os.umask(before)
    assert tools.calls()[-1] == "0022"


def test_the_record_for_debians_resolvconf_has_the_first_matching_prefix(tools: Tools, tmp_path: Path) -> None:
    tools.add("resolvconf")
    (tmp_path / "interface-order").write_text("# order\nlo.inet6\nlo.@(dhclient|pppd)\ntun*\ntap*\n")
    set_dns("wg0", SERVERS)
    unset_dns("wg0")
    assert tools.calls()[::3] == ["resolvconf -a tun.wg0 -m 0 -x", "resolvconf -d tun.wg0 -f"]


def test_a_resolvconf_that_is_a_link_gets_the_plain_interface_name(tools: Tools, tmp_path: Path) -> None:
    tools.add("resolvconf", under="other")
    (tools.directory / "resolvconf").symlink_to("other")
    (tmp_path / "interface-order").write_text("tun*\n")
    set_dns("wg0", SERVERS)
    assert tools.calls()[0] == "resolvconf -a wg0 -m 0 -x"


def test_without_servers_nothing_is_done(tools: Tools) -> None:
    tools.add("resolvconf")
    set_dns("wg0", [], ["example.org"])
    assert tools.calls() == []


def test_without_any_tool_the_error_names_the_remedy(tools: Tools) -> None:
    with pytest.raises(NetworkError, match="install openresolv or systemd-resolved, or delete DNS"):
        set_dns("wg0", SERVERS)
    unset_dns("wg0")  # nothing was set, so there is nothing to undo


def test_the_output_of_a_failing_tool_is_quoted_in_one_line(tools: Tools) -> None:
    tools.add("resolvconf", "echo 'signature mismatch:' >&2; echo /etc/resolv.conf >&2; exit 1")
    with pytest.raises(
        NetworkError,
        match=r"for wg0: resolvconf: signature mismatch: /etc/resolv\.conf; install",
    ):
        set_dns("wg0", SERVERS)
    with pytest.raises(NetworkError, match="cannot unset DNS"):
        unset_dns("wg0")


def test_a_tool_that_hangs_is_killed(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_TIMEOUT", 0.1)
    tools.add("resolvconf", "while :; do :; done")
    with pytest.raises(NetworkError, match="resolvconf did not finish"):
        set_dns("wg0", SERVERS)


def test_a_tool_that_fails_counts_as_missing(tools: Tools) -> None:
    tools.add("systemctl")
    tools.add("resolvectl", "[ $1 = revert ] || { echo 'Failed to connect to bus' >&2; exit 1; }")
    tools.add("resolvconf")
    set_dns("wg0", SERVERS)
    unset_dns("wg0")
    assert [call for call in tools.calls() if call.startswith("resolvconf")] == [
        "resolvconf -a wg0 -m 0 -x",
        "resolvconf -d wg0 -f",
    ]
    assert tools.calls()[-1] == "resolvconf -d wg0 -f", "and not by the one that failed"
    tools.add("resolvconf", "echo broken >&2; exit 1")
    with pytest.raises(NetworkError, match=r"resolvectl: Failed to connect to bus; .*resolvconf: broken; install"):
        set_dns("wg0", SERVERS)


def test_changed_servers_are_set_by_the_same_tool_as_before(tools: Tools) -> None:
    """resolvectl fails at first. If it were used once it works, resolvconf's servers would stay for ever."""
    tools.add("systemctl")
    tools.add("resolvectl", "exit 1")
    tools.add("resolvconf")
    set_dns("wg0", SERVERS[:1])
    tools.add("resolvectl")
    set_dns("wg0", SERVERS[1:])
    begun = len(tools.calls())
    assert tools.calls()[-2:] == ["resolvconf -a wg0 -m 0 -x", "< nameserver fd00::53"]
    unset_dns("wg0")
    assert tools.calls()[begun:] == ["resolvconf -d wg0 -f"]


def test_if_that_tool_fails_another_sets_the_changed_servers_and_the_old_ones_are_removed(tools: Tools) -> None:
    tools.add("resolvconf")
    set_dns("wg0", SERVERS[:1])
    tools.add("resolvconf", "[ $1 = -d ]")
    tools.add("systemctl")
    tools.add("resolvectl")
    begun = len(tools.calls())
    set_dns("wg0", SERVERS[1:])
    unset_dns("wg0")
    assert [call for call in tools.calls()[begun:] if call[0] != "<" and not call.startswith("systemctl")] == [
        "resolvconf -a wg0 -m 0 -x",
        "resolvconf -d wg0 -f",
        "resolvectl dns wg0 fd00::53",
        "resolvectl domain wg0 ~.",
        "resolvectl revert wg0",
    ]


def test_what_a_killed_daemon_set_by_the_second_tool_is_removed_even_if_the_first_fails(tools: Tools) -> None:
    tools.add("systemctl")
    tools.add("resolvectl", "echo 'No such device' >&2; exit 1")
    tools.add("resolvconf")
    with pytest.raises(NetworkError, match="resolvectl: No such device"):
        unset_dns("wg0")
    assert tools.calls()[-1] == "resolvconf -d wg0 -f"
