"""Names and passwords of people from LDAP directories."""

from __future__ import annotations

import logging
from threading import BoundedSemaphore
from typing import Final

from wgpy.gateway.identity.directory import Unavailable
from wgpy.gateway.identity.ldap.people import Denied, People
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.ldap import Settings
from wgpy.gateway.policy.people import Person
from wgpy.gateway.store import directories
from wgpy.gateway.web.server import THREADS
from wgpy.gateway.web.site import Site

log: Final = logging.getLogger("wgpy.gateway")

AT_ONCE: Final = THREADS // 4  # those that wait for directories must leave some for other requests
_TURNS: Final = BoundedSemaphore(AT_ONCE)


def check(site: Site, directory: Directory, name: str, password: str) -> Person | None:
    """Who in a directory has this name and password; None if nobody. Raises Unavailable if it cannot say."""
    with site.database.read() as connection:
        secret = directories.secret(connection, site.database.vault, directory.name)
    people = People(directory.name, Settings(**directory.settings), secret.decode())
    if not _TURNS.acquire(blocking=False):
        raise Unavailable(f"directory {directory.name}: too many people sign in at once")
    try:
        found = people.sign_in(name, password, site.wall())
    finally:
        _TURNS.release()
    if isinstance(found, Denied):
        log.info("directory %s: %a is not let in: %s", directory.name, name, found.reason)
        return None
    return found
