"""Debian's PostgreSQL in a namespace, for as long as a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.netns import Namespace
from wgpy.labs.traffic import wait_for

PASSWORD: Final = "a secret of the database"
PROGRAMS: Final = Path("/usr/lib/postgresql")
_AS_POSTGRES: Final = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


@contextmanager
def postgres(namespace: Namespace, address: str, directory: Path) -> Iterator[None]:
    """A server on port 5432 of an address, in a new directory: its user is postgres, with PASSWORD."""
    programs = max(PROGRAMS.glob("*/bin"), key=lambda path: int(path.parent.name))
    directory.mkdir()
    (directory / "password").write_text(PASSWORD)
    subprocess.run(["chown", "-R", "postgres:", str(directory)], check=True)
    data = str(directory / "data")
    options = ("--auth=scram-sha-256", f"--pwfile={directory}/password", "--no-sync", "--no-locale", "--encoding=UTF8")
    namespace.run(*_AS_POSTGRES, str(programs / "initdb"), "-U", "postgres", *options, data, cwd="/")
    with (directory / "data" / "pg_hba.conf").open("a") as file:
        file.write("host all all all scram-sha-256\n")
    settings = [f"listen_addresses={address}", f"unix_socket_directories={directory}", "fsync=off"]
    command = [*_AS_POSTGRES, str(programs / "postgres"), "-D", data, *(f"--{setting}" for setting in settings)]
    server = namespace.popen(*command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ready = (str(programs / "pg_isready"), "-q", "-h", str(directory))
        assert wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 30), "PostgreSQL did not start"
        yield
    finally:
        server.terminate()  # which waits for its clients
        server.send_signal(2)  # which does not
        server.wait(20)
