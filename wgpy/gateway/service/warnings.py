"""What works and should yet be changed, told in the log."""

from __future__ import annotations

import logging
from typing import Final

from wgpy.gateway.store.database import Database

log: Final = logging.getLogger("wgpy.gateway")


class Warnings:
    """Tells each of the database's warnings when it comes, and not again before it was gone."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: set[str] = set()

    def tell(self) -> None:
        """Write to the log what is new."""
        found = self._database.warnings()
        for kind in found.keys() - self._told:
            log.warning("%s", found[kind])
        self._told = {*found}
