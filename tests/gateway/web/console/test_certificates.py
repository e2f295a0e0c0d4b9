"""The page of client certificates: whose are accepted, which are revoked, and which devices have one."""

from __future__ import annotations

import html
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.identity.authority import CLIENT, Authority, Signed
from tests.gateway.web.console.conftest import ADMIN, Person
from tests.gateway.web.console.test_directory_forms import errors
from wgpy.errors import ConfigError
from wgpy.gateway.identity.certificates import Verifier, read_lists
from wgpy.gateway.policy.certificates import LONGEST_LISTS
from wgpy.gateway.store import audit, certificates
from wgpy.gateway.store.certificates import Bound
from wgpy.gateway.web.site import Site

AUTHORITY, LISTS = "/certificates", "/certificates/lists"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.root(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def alice(root: Authority) -> Signed:
    return root.sign("/CN=alice", CLIENT)


@pytest.fixture
def admin(filled: Site) -> Person:
    """An administrator now, when the certificates are good."""
    filled.database.clock = time.time
    return Person(replace(filled, wall=time.time), ADMIN)


@pytest.fixture
def send(admin: Person) -> Callable[..., Any]:
    """Sends a form of the page as it is now."""

    def send(path: str, **fields: str) -> Any:
        revision = re.findall(r'name="revision" value="(\w+)"', admin.get(AUTHORITY).text)[0]
        return admin.send(path, {"revision": revision, **fields})

    return send


def accepts(site: Site, signed: Signed) -> bool:
    with site.database.read() as connection:
        authority = certificates.find_authority(connection)
    assert authority
    try:
        Verifier(authority, read_lists(authority)).accept(signed.pem(), time.time())
    except ConfigError:
        return False
    return True


def lists(root: Authority, tmp_path: Path, *revoked: Signed) -> str:
    root.revoked = [each.serial for each in revoked]
    return root.crl(tmp_path / "list.crl").read_text()


def test_an_authority_is_accepted_and_shown_as_openssl_sees_it(
    admin: Person, filled: Site, send: Callable[..., Any], root: Authority, alice: Signed
) -> None:
    assert "None are accepted" in admin.get(AUTHORITY).text
    shown = admin.after(send(AUTHORITY, ca=root.pem(), name_from="cn")).text
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-enddate", "-dateopt", "iso_8601"],
        input=root.pem(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    _, fingerprint, end = re.split(r"=|\nnotAfter=", done.stdout.strip())
    assert fingerprint in shown
    assert end[:16] in shown
    assert "CN=Root" in shown
    assert "no certificate counts as revoked" in shown
    assert accepts(filled, alice)
    assert "No certificates are accepted" in admin.after(send("/certificates/remove")).text


def test_lists_are_uploaded_replaced_and_removed(
    admin: Person, filled: Site, send: Callable[..., Any], root: Authority, alice: Signed, tmp_path: Path
) -> None:
    send(AUTHORITY, ca=root.pem(), name_from="cn")
    shown = admin.after(send(LISTS, crl=lists(root, tmp_path))).text
    assert "0; next list by " in shown
    assert accepts(filled, alice)
    shown = admin.after(send(LISTS, crl=lists(root, tmp_path, alice))).text
    assert "1; next list by " in shown
    assert "kept in the database" in shown
    assert not accepts(filled, alice)
    with filled.database.read() as connection:
        entry = audit.of(connection, "authority", "certificates")[0]
    assert (entry["who"], len(str(entry)) < 5000) == (f"user {ADMIN}", True)
    assert "lists with the SHA-256" in entry["after"]["crl"]
    admin.after(send("/certificates/lists/remove"))
    assert accepts(filled, alice)


def test_a_list_that_is_out_of_date_or_missing_is_told(
    admin: Person, filled: Site, send: Callable[..., Any], root: Authority, tmp_path: Path
) -> None:
    below = root.authority("Issuing")
    send(AUTHORITY, ca=root.pem() + below.pem(), name_from="email")
    admin.after(send(LISTS, crl=lists(root, tmp_path)))
    filled.database.clock = lambda: time.time() + 2 * 86400
    later = Person(replace(filled, wall=filled.database.clock), ADMIN)
    shown = html.unescape(later.get(AUTHORITY).text)
    assert "is out of date: renew it" in shown
    assert "there is no list of certificates that 'CN=Issuing' has revoked" in shown
    with filled.database.change("root") as change:
        present = certificates.accepted(change.connection)
        certificates.set_authority(change, replace(present, crl=str(tmp_path / "nowhere")))
    shown = later.get(AUTHORITY).text
    assert "nowhere: No such file" in shown
    assert "CN=Issuing" in shown


@pytest.mark.parametrize(
    ("path", "fields", "field", "why"),
    [
        (AUTHORITY, {"ca": "", "name_from": "cn"}, "ca", "expected certificates in PEM"),
        (AUTHORITY, {"ca": "-----BEGIN CERTIFICATE-----", "name_from": "cn"}, "ca", "expected certificates in PEM"),
        (AUTHORITY, {"ca": "-----BEGIN PRIVATE KEY-----", "name_from": "cn"}, "ca", "private key"),
        (AUTHORITY, {"ca": "ROOT", "name_from": "dn"}, "name_from", "expected one of cn, email, upn"),
        (LISTS, {"crl": ""}, "crl", "-----BEGIN X509 CRL-----"),
        (LISTS, {"crl": "/etc/shadow"}, "crl", "-----BEGIN X509 CRL-----"),
        (LISTS, {"crl": "/etc/shadow\n-----BEGIN X509 CRL-----"}, "crl", "cannot be read"),
        (LISTS, {"crl": "-----BEGIN X509 CRL-----\nMII"}, "crl", "cannot be read"),
        (LISTS, {"crl": "FORGED"}, "crl", "signed by the authority"),
        (LISTS, {"crl": "-----BEGIN X509 CRL-----" + "A" * LONGEST_LISTS}, "crl", "more than 700 KiB"),
    ],
)
def test_what_cannot_be_used_is_told_at_its_field_and_changes_nothing(
    path: str, fields: dict[str, str], field: str, why: str, filled: Site, send: Callable[..., Any], root: Authority,
    tmp_path: Path,
) -> None:  # fmt: skip
    send(AUTHORITY, ca=root.pem(), name_from="email")
    with filled.database.read() as connection:
        before = certificates.find_authority(connection)
    forged = lists(Authority.root(tmp_path / "forged"), tmp_path) if "FORGED" in fields.values() else ""
    given = {name: value.replace("ROOT", root.pem()).replace("FORGED", forged) for name, value in fields.items()}
    refused = send(path, **given)
    assert refused.status_code == 400
    said = errors(refused.text)
    assert {*said} == {field}
    assert why in said[field]
    with filled.database.read() as connection:
        assert certificates.find_authority(connection) == before


def test_a_body_that_is_too_long_is_not_read(send: Callable[..., Any]) -> None:
    assert send(LISTS, crl="A" * (1 << 20)).status_code == 413
    assert send(AUTHORITY, ca="A" * (64 << 10)).status_code == 413


def test_what_somebody_else_has_changed_meanwhile_is_not_replaced(
    admin: Person, filled: Site, root: Authority, tmp_path: Path
) -> None:
    (seen, *_) = re.findall(r'name="revision" value="(\w+)"', admin.get(AUTHORITY).text)
    admin.after(admin.send(AUTHORITY, {"ca": root.pem(), "name_from": "upn", "revision": seen}))
    for path, fields in ((AUTHORITY, {"ca": root.pem(), "name_from": "cn"}), (LISTS, {"crl": lists(root, tmp_path)})):
        told = admin.send(path, {**fields, "revision": seen})
        assert (told.status_code, f"user {ADMIN}" in told.text) == (409, True)
    with filled.database.read() as connection:
        found = certificates.find_authority(connection)
    assert found
    assert (found.name_from, found.crl) == ("upn", "")


def test_a_device_does_without_its_certificate(
    admin: Person, filled: Site, send: Callable[..., Any], root: Authority
) -> None:
    send(AUTHORITY, ca=root.pem(), name_from="cn")
    with filled.database.change("root") as change:
        certificates.bind(
            change,
            Bound(device="alice-phone", subject="CN=<b>alice", serial="1", expires=2e9, chain="", proved_at=0.0,
                  refusal="it is revoked"),
        )  # fmt: skip
    shown = admin.get(AUTHORITY).text
    assert "CN=&lt;b&gt;alice" in shown
    assert "it is revoked" in shown
    assert "does without a certificate" in admin.after(send("/certificates/alice-phone/unbind")).text
    with filled.database.read() as connection:
        assert certificates.find(connection, "alice-phone") is None
    assert send("/certificates/alice-phone/unbind").status_code == 400
