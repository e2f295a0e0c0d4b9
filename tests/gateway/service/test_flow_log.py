"""The flow log with packets: what passes, what is denied, whose it is, and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest

from tests.gateway.enforcement.probes import Probe
from tests.gateway.enforcement.test_packets import BOTH, CLIENTS, NEITHER, POOLS, SERVER, STAFF, World, in_world, shell
from tests.gateway.policy.test_flow_log import DESTROYED
from wgpy.gateway.enforcement.ruleset import LOGGED
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.netfilter import messages
from wgpy.gateway.policy.people import Device
from wgpy.gateway.service.flow_log import CHECKED, MOST, FlowLog
from wgpy.gateway.service.gateway import Gateway
from wgpy.keys import PublicKey

pytestmark = pytest.mark.root


LOOPBACK = ip_address("127.0.0.1").packed


class Owners:
    """What a flow log asks of a gateway: client 2 is Alice's phone."""

    interface = "wg0"
    endpoint = Endpoint(host="192.0.2.1", pools=tuple(POOLS), flow_log=True)

    def owner(self, address: Address) -> Device | None:
        if str(address) not in CLIENTS[2]:
            return None
        addresses = tuple(map(ip_address, CLIENTS[2]))
        return Device(name="phone", user="alice", public_key=PublicKey(bytes(32)), addresses=addresses)


def forget() -> None:
    """Have the kernel forget connections whose time is up, which it does when they are listed."""
    Path("/proc/net/nf_conntrack").read_text()


class Written:
    """A flow log in a world, with what it has written."""

    def __init__(self, world: World) -> None:
        self.world, self.records, self.now, self.owners = world, list[dict[str, Any]](), 1000.0, Owners()
        self.log = FlowLog(cast(Gateway, self.owners), lambda: self.now, self.records.append)
        for name in ("udp_timeout", "udp_timeout_stream", "tcp_timeout_time_wait", "tcp_timeout_close_wait"):
            shell("sysctl", "-qw", f"net.netfilter.nf_conntrack_{name}=1")

    async def until(self, count: int) -> list[dict[str, Any]]:
        """Wait until there are so many records."""
        async with asyncio.timeout(20):
            while len(self.records) < count:
                forget()
                self.log.deny(self.world.notices.read().denied)
                await asyncio.sleep(0.2)
        return self.records


def logged(test: Callable[[Written], Awaitable[None]]) -> Callable[[], None]:
    def body(world: World) -> None:
        async def main() -> None:
            written = Written(world)
            written.log.follow()
            try:
                await test(written)
            finally:
                written.log.close()

        asyncio.run(main())

    body.__name__ = test.__name__
    return in_world(body)


def allow(world: World) -> None:
    world.allow(STAFF, {2: {"staff"}, 3: {"staff"}})
    world.open(CLIENTS[2], CLIENTS[3])


@logged
async def test_what_passes_has_a_record_for_each_direction_with_its_device_and_user(written: Written) -> None:
    allow(written.world)
    client, server = CLIENTS[2][1], SERVER[1]
    assert written.world.clients.answers(Probe(CLIENTS[3][1], server, "udp"), Probe(client, server, "udp")) != ["", ""]
    out, back = await written.until(2)
    assert (out["srcaddr"], out["dstaddr"], out["dstport"], out["protocol"]) == (client, server, 443, 17)
    assert (out["packets"], out["bytes"], out["flow-direction"]) == (1, 40 + 8 + 1, "ingress")
    assert (back["srcaddr"], back["dstport"], back["flow-direction"]) == (server, out["srcport"], "egress")
    assert (back["packets"], back["bytes"]) == (1, 40 + 8 + len(client))
    assert {each["action"] for each in (out, back)} == {"ACCEPT"}
    assert {(each["device"], each["user"]) for each in (out, back)} == {("phone", "alice")}
    assert 0 <= out["end"] - out["start"] < 100, "the kernel's times"


@logged
async def test_what_the_rules_deny_has_a_record(written: Written) -> None:
    world = written.world
    world.log_denied = True
    world.allow(STAFF[:1], {2: {"staff"}})
    world.open(CLIENTS[2])
    assert world.clients.reaches(2) == [True, False]
    (record, *_) = await written.until(1)
    assert (record["srcaddr"], record["dstaddr"]) == (CLIENTS[2][1], SERVER[1])
    assert (record["action"], record["dstport"], record["protocol"], record["packets"]) == ("REJECT", 443, 6, 1)
    assert record["user"] == "alice"


@logged
async def test_a_flood_of_denied_packets_is_logged_in_part_and_the_rest_is_counted(written: Written) -> None:
    world = written.world
    world.log_denied = True
    world.allow([], {2: {"staff"}})
    world.open(CLIENTS[2])
    written.log.tell_lost(world.firewall.unlogged())
    flood = f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(({CLIENTS[2][0]!r}, 0))"
    world.clients.namespace.run("python3", "-c", f"{flood}\nfor _ in range(2000): s.sendto(b'x', ({SERVER[0]!r}, 9))")
    dropped = world.firewall.dropped()["denied"]
    most = int(LOGGED.split()[2])
    records = await written.until(most)
    assert dropped == 2000
    assert most <= len(records) < dropped / 2
    written.now += CHECKED
    assert written.log.is_due
    written.log.tell_lost(world.firewall.unlogged())
    assert records[-1]["log-status"] == "SKIPDATA"
    assert records[-1]["lost"] + len(records) - 1 == dropped
    written.log.tell_lost(world.firewall.unlogged())
    assert records[-1]["log-status"] != "SKIPDATA" or len(records) - 1 + records[-1]["lost"] == dropped, "told once"


@pytest.mark.parametrize("begun", [False, True])
def test_connections_without_number_are_logged_in_part_and_the_rest_is_counted(begun: bool) -> None:
    records: list[dict[str, Any]] = []
    now = 1000.0
    log = FlowLog(cast(Gateway, Owners()), lambda: now, records.append)
    log.tell_lost(0)
    (message,) = messages(DESTROYED.replace(LOOPBACK, ip_address(CLIENTS[2][0]).packed, 1))
    log.take([message.attributes] * 2500)
    assert len(records) == MOST
    now += 1
    if begun:
        log.take([message.attributes])
    log.tell_lost(0)
    assert records[-1]["lost"] == log.lost == 1500
    assert len(records) == MOST + 1 + begun


@logged
async def test_without_the_setting_nothing_is_logged(written: Written) -> None:
    written.owners.endpoint = replace(written.owners.endpoint, flow_log=False)
    written.log.follow()
    allow(written.world)
    assert written.world.clients.reaches(2, protocol="udp") == BOTH
    written.world.allow([], {2: {"staff"}})
    assert written.world.clients.reaches(2, protocol="udp") == NEITHER
    assert written.world.notices.read().denied == []
    assert not written.log.is_due
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await written.until(1)
