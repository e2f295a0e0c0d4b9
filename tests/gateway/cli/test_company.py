"""The commands of the page on running a gateway for a company, as it has them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import forked_wgpy
from tests.support.postgres import Postgres
from wgpy.cli import main
from wgpy.config.wgquick import parse
from wgpy.errors import ConfigError
from wgpy.gateway.store import devices, endpoint, transfer
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.vault import Vault

pytestmark = pytest.mark.peer
PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "gateway-company.md").read_text()
URL = "postgresql://wgpy@db.example.org/wgpy"
PROGRAMS = {
    "systemctl": 'echo "$@" >> systemctl.log',
    "scp": 'for last; do :; done\nfor each; do [ "$each" = "$last" ] || cp -p "${each#*:}" "$last"; done',
}


def commands(section: str, language: str = "sh") -> list[str]:
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Host:
    """A host with /etc/wgpy, /var/lib/wgpy/gateway and /root in a directory, and `first`, which scp can copy from."""

    def __init__(self, directory: Path, url: str = "", first: Path | None = None) -> None:
        self.directory, self.url, self._first = directory, url, first or directory
        self.gateway, self.key = directory / "var/lib/wgpy/gateway", directory / "etc/wgpy/gateway.key"
        for path in ("bin", "root"):
            (directory / path).mkdir(parents=True)
        for name, text in PROGRAMS.items():
            program = directory / "bin" / name
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o700)

    def shell(self, *scripts: str) -> str:
        """What scripts print, which name the files of this host as if it had the machine to itself."""
        script = "\n".join(scripts).replace("first:/", f"first:{self._first}/")
        script = re.sub(r"(?<![\w/])/(etc/wgpy|var/lib/wgpy|root)\b", rf"{self.directory}/\1", script)
        script = script.replace(f"{URL}?", f"{self.url}&").replace(URL, self.url)
        environment = {
            **os.environ,
            "PATH": f"{self.directory}/bin:{Path(forked_wgpy()).parent}:{os.environ['PATH']}",
            "WGPY_GATEWAY": str(self.gateway),
            "WGPY_GATEWAY_KEY": str(self.key),
        }
        command = ["sh", "-euc", script]
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stderr}"
        return done.stdout

    def run(self, words: str) -> None:
        """Run a command of the gateway in this process, which is faster."""
        places = ["--directory", str(self.gateway), "--key", str(self.key)]
        assert main(["gateway", *words.split(), *places]) == 0

    def content(self) -> dict[str, Any]:
        with self.database() as database, database.read() as connection:
            return transfer.everything(connection)

    @contextmanager
    def database(self) -> Iterator[Database]:
        place = self.gateway / "database.url"
        found = place.read_text().strip() if place.exists() else self.gateway / "gateway.db"
        with closing(Database(found, self.key)) as database:
            yield database

    def public_key(self) -> str:
        with self.database() as database, database.read() as connection:
            return endpoint.private_key(connection, database.vault).public_key.base64()

    def is_shared(self) -> bool:
        with self.database() as database:
            return database.is_shared


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with a gateway that knows Alice and her phone."""
    made = Host(tmp_path / "host")
    made.run("init --host vpn.example.org --pool 10.99.0.0/24")
    made.run("group add staff")
    made.run("user add alice --group staff")
    made.run(f"device add phone --user alice --output {made.directory}/phone.conf")
    return made


@pytest.fixture
def company(host: Host, postgresql: Postgres) -> Iterator[Host]:
    """The same host, after `Move to PostgreSQL`."""
    (statements,) = commands("Move to PostgreSQL", "sql")
    for statement in statements.split(";")[:-1]:
        postgresql.sql(statement)
    host.url = f"postgresql://wgpy@/wgpy?host={postgresql.directory}"
    host.shell(*commands("Move to PostgreSQL")[:1])
    yield host
    postgresql.sql("DROP DATABASE wgpy WITH (FORCE)")
    postgresql.sql("DROP USER wgpy")


def test_a_gateway_moves_to_postgresql_and_back(company: Host) -> None:
    before = company.content()
    assert company.is_shared()
    assert (company.directory / "systemctl.log").read_text() == "stop wgpy-gateway\nstart wgpy-gateway\n"
    assert (company.directory / "etc/wgpy/pgpass").stat().st_mode & 0o777 == 0o600
    company.run("user add bob")
    company.shell(*commands("Move to PostgreSQL")[1:])
    assert not company.is_shared()
    after = company.content()
    assert [user["name"] for user in after["users"]] == ["alice", "bob"]
    assert after["devices"] == before["devices"]


def test_another_host_becomes_a_gateway_and_is_given_a_new_key_of_the_secrets(company: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "other", company.url, company.directory)
    other.shell(*commands("Add gateways"))
    assert other.content() == company.content()
    company.shell(*commands("Change the key file")[:1])
    other.key.unlink()
    other.shell(*commands("Change the key file")[1:])
    assert other.public_key() == company.public_key()


def test_a_backup_is_restored_here_and_on_a_host_that_has_the_key_only(host: Host, tmp_path: Path) -> None:
    before = host.content()
    backup, restore = commands("Backup")
    host.shell(backup)
    host.run("user add bob")
    host.shell(restore)
    assert host.content() == before
    other = Host(tmp_path / "other", first=host.directory)
    other.shell(
        "mkdir -p /etc/wgpy", "scp first:/etc/wgpy/gateway.key /etc/wgpy/", f"cp {host.directory}/root/* /root/"
    )
    other.shell(restore)
    assert other.content() == before


def test_a_new_key_file_opens_all_that_the_old_one_did_and_the_old_one_nothing(host: Host) -> None:
    public_key, old = host.public_key(), Vault.read(host.key)
    host.shell(*commands("Change the key file")[:1])
    assert host.public_key() == public_key
    with host.database() as database, database.read() as connection:
        expected = parse((host.directory / "phone.conf").read_text()).config.peers[0].preshared_key
        assert devices.preshared_key(connection, database.vault, "phone") == expected
        with pytest.raises(ConfigError, match="cannot be decrypted"):
            devices.preshared_keys(connection, old)


def test_a_new_wireguard_key_is_told_so_that_clients_can_be_given_it(host: Host) -> None:
    before = host.public_key()
    told = host.shell("exec 2>&1", *commands("Change the WireGuard key")[:1])
    after = host.public_key()
    assert after != before
    assert after in told
    assert not [*(host.directory / "root").iterdir()], "the file with the private key is gone"


def test_a_gateway_with_the_new_wireguard_key_serves_the_same_devices_beside_the_old_one(
    host: Host, tmp_path: Path
) -> None:
    old = host.public_key()
    host.shell(*commands("Backup")[:1])
    other = Host(tmp_path / "other", first=host.directory)
    other.shell(*commands("Change the WireGuard key")[1:])
    assert other.content()["devices"] == host.content()["devices"]
    assert other.content()["endpoint"]["host"] == "vpn2.example.org"
    assert other.public_key() != old
    assert host.public_key() == old


def test_certificates_are_replaced_by_the_commands(host: Host) -> None:
    host.shell(
        "echo new > /root/fullchain.pem; cp /root/fullchain.pem /root/privkey.pem", *commands("Change the certificate")
    )
    assert (host.directory / "etc/wgpy/privkey.pem").stat().st_mode & 0o777 == 0o600
