"""Debian's PostgreSQL for tests, in a directory of its own: on a Unix socket there, or on an address in a namespace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.support.netns import Namespace
from wgpy.labs.traffic import wait_for

PASSWORD: Final = "a secret of the database"
_PROGRAMS: Final = Path("/usr/lib/postgresql")
_AS_POSTGRES: Final = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


class Postgres:
    """A server, whose user is postgres: with PASSWORD over TCP, and without one on the Unix socket.

    If `address` is given, it listens on port 5432 there, in the namespace; with TLS, if there is the file of a
    certificate and that of its key. PostgreSQL refuses to run as root.
    """

    def __init__(
        self, namespace: Namespace | None = None, address: str = "", tls: tuple[Path, Path] | None = None
    ) -> None:
        versions = list(_PROGRAMS.glob("*/bin"))
        if not versions:
            pytest.skip("needs PostgreSQL")
        self._programs = max(versions, key=lambda path: int(path.parent.name))
        self._namespace, self._address = namespace, address
        self._user = _AS_POSTGRES if os.getuid() == 0 else ()
        self.directory: Path = Path(tempfile.mkdtemp(prefix="wgpy-postgres-", dir="/tmp"))  # a socket's path is short
        self._server: subprocess.Popen[str] | None = None
        self._connection: psycopg.Connection | None = None  # for `sql`: psql is a process and a connection each time
        (self.directory / "password").write_text(PASSWORD)
        self._tls: dict[str, str] = {}
        for name, source in zip(("ssl_cert_file", "ssl_key_file"), tls or (), strict=False):
            self._tls |= {"ssl": "on", name: str(shutil.copy(source, self.directory / name))}
            (self.directory / name).chmod(0o600)
        if self._user:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, "postgres", "postgres")
        options = ("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={self.directory}/password")
        data = str(self.directory / "data")
        self._run("initdb", "-U", "postgres", *options, "--no-sync", "--no-locale", "--encoding=UTF8", data)
        with (self.directory / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")

    def start(self) -> None:
        """Start it, and return when it answers."""
        settings = {
            "listen_addresses": self._address, "unix_socket_directories": self.directory, "fsync": "off",
            "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "16MB", **self._tls,
        }  # fmt: skip
        command = [
            *self._user, str(self._programs / "postgres"), "-D", str(self.directory / "data"),
            *(f"--{name}={value}" for name, value in settings.items()),
        ]  # fmt: skip
        with (self.directory / "log").open("a") as log:
            if self._namespace:
                self._server = self._namespace.popen(*command, cwd="/", stdout=log, stderr=log)
            else:
                self._server = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, text=True)
        ready = (str(self._programs / "pg_isready"), "-q", "-h", str(self.directory))
        assert wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 30), "PostgreSQL did not start"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: by SIGINT it ends its clients, and by SIGQUIT as if it had crashed."""
        assert self._server
        if self._connection:
            self._connection.close()
            self._connection = None
        self._server.send_signal(how)
        self._server.wait(20)

    def url(self, database: str = "postgres") -> str:
        """The database's URL, on the Unix socket."""
        return f"postgresql://postgres@/{database}?host={self.directory}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What `psql -At` prints: a line for each row, with | between the columns."""
        if database != "postgres":
            with psycopg.connect(self.url(database), autocommit=True) as connection:
                return _printed(connection, statement)
        if self._connection is None:
            self._connection = psycopg.connect(self.url(), autocommit=True)
        return _printed(self._connection, statement)

    def delete(self) -> None:
        if self._server and self._server.poll() is None:
            self.stop()
        shutil.rmtree(self.directory)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._user, str(self._programs / program), *arguments]
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL)


def _printed(connection: psycopg.Connection, statement: str) -> str:
    found = connection.execute(statement.encode()).pgresult
    assert found
    rows = ((found.get_value(row, column) or b"" for column in range(found.nfields)) for row in range(found.ntuples))
    return "\n".join(b"|".join(row).decode() for row in rows)


@contextmanager
def postgres(
    namespace: Namespace | None = None, address: str = "", tls: tuple[Path, Path] | None = None
) -> Iterator[Postgres]:
    """A server that runs."""
    server = Postgres(namespace, address, tls)
    try:
        server.start()
        yield server
    finally:
        server.delete()
