"""A server of PostgreSQL with TLS, as one on another host: who it has to be, and what a weaker URL gives away."""

from __future__ import annotations

import socket
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.gateway.identity.authority import Authority
from tests.support.postgres import PASSWORD, Postgres, postgres
from wgpy.errors import ControlError
from wgpy.gateway.cli import common
from wgpy.gateway.policy.people import Group
from wgpy.gateway.store import groups
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.postgresql import risk
from wgpy.labs.traffic import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("tls")]

NAME, ADDRESS = "db.example.org", "127.0.0.77"
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"  # the first that a client says (PostgreSQL's documentation, 55.7)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the server's certificate and key, its authority (ca.pem), another one, and a password."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority.root(directory / "authority")
    signed = authority.sign(f"/CN={NAME}", f"subjectAltName = DNS:{NAME}\nextendedKeyUsage = serverAuth\n")
    signed.certificate.rename(directory / "server.pem")
    signed.key.rename(directory / "server.key")
    (directory / "ca.pem").write_text(authority.pem())
    (directory / "other.pem").write_text(Authority.root(directory / "other").pem())
    (directory / "pgpass").write_text(f"*:*:*:*:{PASSWORD}\n")
    (directory / "pgpass").chmod(0o600)
    return directory


@pytest.fixture(scope="module")
def server(certificates: Path) -> Iterator[Postgres]:
    with postgres(address=ADDRESS, tls=(certificates / "server.pem", certificates / "server.key")) as made:
        yield made


def url(certificates: Path, more: str, host: str = NAME, address: str = ADDRESS) -> str:
    return f"postgresql://postgres@{host}/postgres?hostaddr={address}&passfile={certificates}/pgpass{more}"


def test_the_servers_certificate_and_name_are_checked_and_all_connections_encrypted(
    server: Postgres, certificates: Path, tmp_path: Path
) -> None:
    place = url(certificates, f"&sslrootcert={certificates}/ca.pem")
    Database.create(place, tmp_path / "key").close()
    with (
        closing(Database(f"{place}&sslmode=verify-full", tmp_path / "key", node="a")) as database,
        database.running(),
    ):
        watch = database.watch()
        watch.changed()
        with database.change("root") as change:
            groups.add(change, Group(name="staff"))
        assert wait_for(watch.changed)
        assert database.warnings() == {}
        connections = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'wgpy gateway'"
        assert server.sql(f"SELECT bool_and(ssl), count(*) >= 2 {connections}") == "t|t"


@pytest.mark.parametrize(
    ("host", "authority", "why"),
    [
        (NAME, "other.pem", "certificate verify failed.*the URL can name the server's authority"),
        (NAME, "", "certificate verify failed.*the URL can name the server's authority"),
        ("other.example.org", "ca.pem", 'certificate for .* does not match host name "other.example.org"'),
    ],
    ids=["another authority", "the system's authorities", "another name"],
)
def test_another_server_is_refused_and_nothing_secret_told(
    host: str, authority: str, why: str, server: Postgres, certificates: Path
) -> None:
    place = url(certificates, f"&sslrootcert={certificates / authority}" if authority else "", host)
    with pytest.raises(ControlError, match=why) as error:
        Database.exists(place)
    assert PASSWORD not in str(error.value)
    assert "pgpass" not in str(error.value)


@pytest.mark.parametrize("mode", ["", "&sslmode=verify-full", "&sslmode=require"])
def test_a_server_that_has_no_tls_learns_nothing(mode: str, certificates: Path) -> None:
    with socket.create_server((ADDRESS, 0)) as listener, ThreadPoolExecutor(1) as thread:

        def deny() -> bytes:
            client, _ = listener.accept()
            with client:
                client.settimeout(30)
                asked = client.recv(100)
                client.sendall(b"N")
                return asked + client.recv(100)

        said = thread.submit(deny)
        place = url(certificates, mode).replace(NAME, f"{NAME}:{listener.getsockname()[1]}")
        with pytest.raises(ControlError, match=r"SSL.*turn on TLS at the server"):
            Database.exists(place)
        assert said.result() == SSL_REQUEST


@pytest.mark.parametrize("mode", ["prefer", "allow", "require", "verify-ca", "disable"])
def test_a_url_that_checks_less_works_and_is_warned_of(mode: str, server: Postgres, certificates: Path) -> None:
    place = url(certificates, f"&sslmode={mode}")
    if mode == "verify-ca":
        place += f"&sslrootcert={certificates}/ca.pem"
    assert Database.exists(place) in (True, False)
    assert f"database at {NAME}: with sslmode={mode}, whoever is on the way" in risk(place)
    assert "pgpass" not in risk(place)


@pytest.mark.parametrize(
    "place",
    [
        "postgresql:///wgpy?hostaddr=203.0.113.5",
        "postgresql:///wgpy?service=elsewhere",
        "postgresql:///wgpy?host=/run/postgresql,db.example.org",
        "postgresql://localhost,db.example.org/wgpy",
    ],
)
def test_a_server_that_may_be_elsewhere_counts_as_such(place: str) -> None:
    more = "&" if "?" in place else "?"
    assert risk(f"{place}{more}sslmode=prefer")
    assert not risk(place)


def test_the_commands_that_take_a_url_say_what_it_gives_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode, is_warned in (("prefer", True), ("verify-full", False)):
        place = f"postgresql://wgpy@{NAME}/wgpy?passfile=/etc/wgpy/pgpass&sslmode={mode}"
        with common.using(Namespace(directory=tmp_path / mode, key=tmp_path), place):
            pass
        said = capsys.readouterr().err
        assert ("wgpy: warning: database at db.example.org: with sslmode=prefer" in said) is is_warned
        assert "pgpass" not in said


def test_the_environment_may_lead_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not risk("postgresql:///wgpy?sslmode=prefer")
    monkeypatch.setenv("PGHOST", "db.example.org")
    assert risk("postgresql:///wgpy?sslmode=prefer")
