"""A gateway's database goes from SQLite to PostgreSQL and back, and other hosts join it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.gateway.conftest import Places
from tests.support.postgres import Postgres
from wgpy.cli import main
from wgpy.gateway.store import sessions
from wgpy.gateway.store.database import Database

pytestmark = [pytest.mark.peer, pytest.mark.parametrize("both_kinds", ["postgresql"], indirect=True)]


class Host:
    """A host with a directory and a key file."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.key = directory / "gateway", directory / "gateway.key"
        directory.mkdir()
        self._capsys = capsys

    def run(self, words: str, status: int = 0) -> str:
        """What a command prints, or what it says on standard error if it prints nothing."""
        places = ["--directory", str(self.directory), "--key", str(self.key)]
        assert main(["gateway", *words.split(), *places]) == status
        output, error = self._capsys.readouterr()
        return output or error

    def fill(self) -> None:
        self.run("init --host 192.0.2.1 --pool 10.99.0.0/24")
        self.run("group add staff")
        self.run("user add alice --group staff")
        self.run(f"device add phone --user alice --output {self.key.with_name('phone.conf')}")
        self.run("rule add office 10.0.0.0/8 --group staff")
        with Database(self.directory / "gateway.db", self.key).change("gateway") as change:
            row = {
                "device": "phone",
                "user": "alice",
                "started_at": 1.0,
                "reason": None,
                "entry": {"connection-id": "a"},
            }
            sessions.write(change, [{**row, "id": "a", "ended_at": 2.0}, {**row, "id": "b", "ended_at": None}])

    def content(self) -> object:
        return json.loads(self.run("export"))

    def log(self) -> object:
        return json.loads(self.run("log --audit --json -n 1000"))


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Host:
    made = Host(tmp_path / "a", capsys)
    made.fill()
    return made


def test_everything_goes_to_postgresql_and_comes_back_and_the_source_stays(
    host: Host, places: Places, tmp_path: Path
) -> None:
    content, log, source = host.content(), host.log(), (host.directory / "gateway.db").read_bytes()
    assert "rows copied to postgresql://postgres@/new" in host.run(f"migrate --to {places('new')}")
    assert (host.directory / "database.url").stat().st_mode & 0o777 == 0o600
    assert host.content() == content
    assert host.log()[:-1] == log  # type: ignore[index]
    assert (host.directory / "gateway.db").read_bytes() == source
    with closing(Database(places("new"), host.key)) as database, database.read() as connection:
        assert [row["id"] for row in sessions.under_way(connection)] == ["b"]
        assert [entry["connection-id"] for entry in sessions.last(connection, 9)] == ["a", "a"]
    host.run("user add bob")  # the numbers of the audit log go on
    assert "in PostgreSQL already" in host.run(f"migrate --to {places('another')}", status=1)
    saved = tmp_path / "saved"
    host.run(f"backup {saved}")
    (host.directory / "database.url").unlink()
    (host.directory / "gateway.db").rename(tmp_path / "old.db")
    host.run(f"restore {saved}")
    back = json.loads(host.run("export"))
    assert [user["name"] for user in back["users"]] == ["alice", "bob"]
    assert {**back, "users": back["users"][:1]} == content


def test_a_migration_is_refused_while_a_gateway_runs_and_into_a_database_in_use(
    host: Host, places: Places, postgresql: Postgres
) -> None:
    url = str(places("new"))
    with Database(host.directory / "gateway.db", host.key).running():
        assert "the gateway runs already" in host.run(f"migrate --to {url}", status=1)
    assert postgresql.sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'", "new") == "0"
    postgresql.sql("CREATE TABLE mine (a int)", "new")
    assert "has tables already, such as mine" in host.run(f"migrate --to {url}", status=1)
    postgresql.sql("DROP TABLE mine", "new")
    for wrong, why in (
        ("mysql://a/b", "expected a URL such as postgresql://"),
        ("postgresql://a:geheim@h/b", "leave the password out of the URL"),
        (f"{url.replace('/new', '/nothing')}", 'database "nothing" does not exist; create it first'),
        ("postgresql://a@127.0.0.1:1/b", "refused; is PostgreSQL running there"),
    ):
        said = host.run(f"migrate --to {wrong}", status=1)
        assert why in said
        assert "geheim" not in said
    assert not (host.directory / "database.url").exists()
    host.run(f"migrate --to {url}")
    (host.directory / "database.url").unlink()
    assert "has a gateway already" in host.run(f"migrate --to {url}", status=1)


def test_another_host_joins_with_the_same_key_only(
    host: Host, places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = places("new")
    host.run(f"migrate --to {url}")
    other = Host(tmp_path / "b", capsys)
    assert "there is no key yet; copy that of another gateway" in other.run(f"join {url}", status=1)
    strange = Host(tmp_path / "c", capsys)
    strange.fill()
    assert "there is a gateway here already" in strange.run(f"join {url}", status=1)
    other.key.write_bytes(strange.key.read_bytes())
    other.key.chmod(0o600)
    assert "the key file is not the one that this database was made with" in other.run(f"join {url}", status=1)
    other.key.write_bytes(host.key.read_bytes())
    other.run(f"join {url} --json")
    assert other.content() == host.content()
    assert "there is a gateway here already" in strange.run(f"init --host h --pool 10.1.0.0/24 --database {url}", 1)


def test_a_gateway_can_begin_in_postgresql(places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Host(tmp_path / "new", capsys)
    url = places("fresh")
    made.run(f"init --host 192.0.2.1 --pool 10.99.0.0/24 --database {url}")
    made.run("group add staff")
    assert not (made.directory / "gateway.db").exists()
    again = Host(tmp_path / "again", capsys)
    said = again.run(f"init --host 192.0.2.1 --pool 10.99.0.0/24 --database {url}", status=1)
    assert "has a gateway already" in said or "no such" in said.lower()
    assert not (again.directory / "database.url").exists()
