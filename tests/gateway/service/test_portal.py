"""Where people sign in at a portal: it stays open to devices without a session, and who signs in is back at once."""

from __future__ import annotations

from ipaddress import ip_address

from tests.gateway.service.world import PHONE, World, send, set_endpoint
from wgpy.gateway.policy.portal import Service
from wgpy.gateway.service.gateway import RETRY, Gateway
from wgpy.gateway.store import devices
from wgpy.gateway.store.database import Database

PORTAL = Service("tcp", 443)


def start(database: Database, world: World, portal: Service | None = PORTAL) -> Gateway:
    gateway = Gateway(
        database, world, world, clock=lambda: world.now, wall=lambda: world.date, write=world.entries.append,
        portal=portal,
    )  # fmt: skip
    gateway.start()
    gateway.tick()
    return gateway


def sign_in(database: Database, at: float) -> None:
    with database.change("user alice") as change:
        devices.sign_in(change, "phone", at)


def test_the_portal_and_name_servers_are_open_where_people_sign_in(phone: Database, world: World) -> None:
    set_endpoint(phone, dns=(ip_address("10.50.0.53"),))
    gateway = start(phone, world)
    assert world.services == []
    set_endpoint(phone, sign_in=True)
    gateway.tick()
    names = [Service(protocol, 53, ip_address("10.50.0.53")) for protocol in ("udp", "tcp")]
    assert world.services == [PORTAL, *names]
    start(phone, world, None)
    assert world.services == [], "without --https"


def test_who_was_refused_and_signs_in_is_back_at_once(phone: Database, world: World) -> None:
    set_endpoint(phone, sign_in=True)
    gateway = start(phone, world)
    send(gateway)
    assert world.open == {}
    sign_in(phone, world.date)
    gateway.tick()
    assert {*world.open} == {*PHONE}


def test_who_has_been_silent_begins_with_what_comes_next(phone: Database, world: World) -> None:
    set_endpoint(phone, sign_in=True)
    gateway = start(phone, world)
    send(gateway)
    world.pass_time(RETRY + 1)
    sign_in(phone, world.date)
    gateway.tick()
    assert world.open == {}
    send(gateway)
    assert {*world.open} == {*PHONE}


def test_another_change_lets_nobody_back_in(phone: Database, world: World) -> None:
    set_endpoint(phone, sign_in=True)
    gateway = start(phone, world)
    sign_in(phone, world.date - 3600 * 24)
    send(gateway)
    set_endpoint(phone, banner="hello")
    gateway.tick()
    assert world.open == {}
