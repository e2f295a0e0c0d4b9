"""A link lets another device add itself: once, for five minutes, and in the name of whoever made it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import pytest

from tests.gateway.web.portal.people import KEY, Person, add_user, file_of, link_of, stored
from wgpy.config.wgquick import parse
from wgpy.gateway.store import devices, users
from wgpy.gateway.web.portal.adding import LIFETIME
from wgpy.gateway.web.site import Site


@pytest.fixture
def link(site: Site) -> str:
    """The path of a link that Alice has made for her phone."""
    return link_of(Person(site, "alice").add("phone", "link"))


def owners(site: Site) -> dict[str, str]:
    with site.database.read() as connection:
        return {device.name: device.user for device in devices.find_all(connection)}


def test_a_phone_gets_its_file_by_the_link_and_the_key_is_made_only_then(site: Site, link: str) -> None:
    phone = Person(site)
    assert owners(site) == {}
    page = phone.get(link)
    assert "Set up phone" in page.text
    assert owners(site) == {}, "a program that looks into the link uses nothing up"
    answer = phone.post(link, {"how": "gateway"})
    assert parse(file_of(answer)).config.private_key
    assert owners(site) == {"alice-phone": "alice"}
    assert "alice-phone" in Person(site, "alice").get("/").text


def test_a_phones_browser_makes_its_key_itself(site: Site, link: str) -> None:
    answer = Person(site).post(link, {"how": "here", "public_key": KEY}, Accept="application/json")
    assert answer.json()["file_name"] == "phone.conf"
    with site.database.read() as connection:
        assert devices.find(connection, "alice-phone").public_key.base64() == KEY


def test_a_link_is_good_once(site: Site, link: str) -> None:
    first, second = Person(site), Person(site)
    assert first.post(link, {"how": "gateway"}).status_code == 200
    for answer in (second.get(link), second.post(link, {"how": "gateway"}), first.post(link, {"how": "gateway"})):
        assert answer.status_code == 404
        assert "PrivateKey" not in answer.text
    assert second.post(link, {"how": "gateway"}, Accept="application/json").status_code == 404
    assert len(owners(site)) == 1


def test_of_many_who_use_a_link_at_once_one_gets_the_device(site: Site, link: str) -> None:
    everybody = [Person(site, address=f"192.0.2.{number}") for number in range(1, 9)]
    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(lambda person: person.post(link, {"how": "gateway"}).status_code, everybody)]
    assert sorted(answers) == [200, *[404] * 7]
    assert len(owners(site)) == 1


def test_a_link_is_good_for_five_minutes(site: Site, link: str) -> None:
    late = replace(site, wall=lambda: 1000 + LIFETIME)
    site.database.clock = late.wall
    for answer in (Person(late).get(link), Person(late).post(link, {"how": "gateway"})):
        assert answer.status_code == 404
    assert owners(site) == {}


def test_a_link_that_is_refused_stays_good(site: Site, link: str) -> None:
    phone = Person(site)
    refused = phone.post(link, {"how": "mine", "public_key": "x"})
    assert (refused.status_code, "44 base64 characters" in refused.text) == (400, True)
    assert phone.post(link, {"how": "gateway"}).status_code == 200


def test_another_link_for_the_same_device_replaces_the_first(site: Site, link: str) -> None:
    other = link_of(Person(site, "alice").add("phone", "link"))
    assert Person(site).get(link).status_code == 404
    assert Person(site).get(other).status_code == 200


def test_a_link_is_for_its_device_only(site: Site, link: str) -> None:
    """Who has a link for one device can neither choose another name nor use another part of the site with it."""
    add_user(site.database, "bob")
    secret = link.rpartition("/")[2]
    for path in (f"/link/alice-laptop/{secret}", f"/link/bob-phone/{secret}", f"/set-up/{secret}"):
        assert Person(site).post(path, {"how": "gateway"}).status_code != 200
    assert Person(site).post(link, {"how": "gateway", "name": "other", "user": "bob"}).status_code == 200
    assert owners(site) == {"alice-phone": "alice"}


def test_a_link_ends_with_its_persons_access(site: Site, link: str) -> None:
    with site.database.change("root") as change:
        users.replace(change, replace(users.find(change.connection, "alice"), enabled=False))
    assert Person(site).post(link, {"how": "gateway"}).status_code == 404
    assert owners(site) == {}


def test_a_copy_of_the_database_has_no_link(site: Site, link: str) -> None:
    secret = link.rpartition("/")[2]
    assert len(secret) == 43  # 32 bytes
    assert sha256(secret.encode()).hexdigest() in stored(site)
    assert secret not in stored(site)


def test_links_cannot_be_tried_at_will(site: Site) -> None:
    stranger = Person(site)
    answers = [stranger.get(f"/link/alice-phone/{number}").status_code for number in range(30)]
    assert answers[0] == 404
    assert answers[-1] == 400
    assert Person(site, address="192.0.2.77").get("/link/alice-phone/1").status_code == 404
