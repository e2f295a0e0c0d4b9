"""Look at the certificates that devices are bound to, again and again: who is revoked or expired loses the session."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.identity.certificates import Verifier
from wgpy.gateway.identity.enrolment import Verifiers
from wgpy.gateway.store import certificates, devices
from wgpy.gateway.store.certificates import Bound
from wgpy.gateway.store.database import Database

log: Final = logging.getLogger("wgpy.gateway")

INTERVAL: Final = 20.0  # seconds: a change of the file of revoked certificates is noticed at the latest after these
_AGAIN: Final = 600.0  # seconds until one that is not accepted is looked at again; other lists do that at once


async def keep_judging(database: Database, wall: Callable[[], float] = time.time) -> None:
    """Judge all bound certificates, at once and then every INTERVAL. It ends when it is cancelled."""
    certificates_of = Certificates(database, Verifiers())
    while True:
        try:
            await asyncio.to_thread(certificates_of.check, wall())
        except WgpyError as error:
            log.error("certificates: %s; trying again", error)
        except Exception:
            log.exception("certificates: this is a bug")  # but no reason to let all certificates be good for ever
        await asyncio.sleep(INTERVAL)


class _Seen(NamedTuple):
    """What was found out about a certificate, from one time to another."""

    chain: str
    since: float
    until: float
    refusal: str


class Certificates:
    """Judges all bound certificates. Those that nothing has changed for cost nothing."""

    def __init__(self, database: Database, verifiers: Verifiers) -> None:
        self._database, self._verifiers = database, verifiers
        self._verifier: Verifier | None = None
        self._seen: dict[str, _Seen] = {}  # by device
        self._trouble = ""

    def check(self, wall: float) -> None:
        """Record which certificates are accepted now, at `wall` in seconds since 1970. Raises ControlError."""
        with self._database.read() as connection:
            every, authority = certificates.find_all(connection), certificates.find_authority(connection)
        if not every:
            return
        trouble = ""
        try:
            verifier = self._verifiers.verifier(authority)
        except ConfigError as error:
            trouble, verifier = str(error), None
        if trouble != self._trouble and trouble:
            log.error("%s; the sessions of devices with certificates end", trouble)
        self._trouble = trouble
        if verifier is not self._verifier:
            self._verifier = verifier
            self._seen.clear()
        judged = {each.device: self._judge(verifier, each, wall) if verifier else trouble for each in every}
        changed = {each.device: judged[each.device] for each in every if judged[each.device] != each.refusal}
        if not changed:
            return
        with self._database.change("gateway") as change:
            for bound in certificates.find_all(change.connection):
                if bound.device in changed and bound in every:  # and was not bound anew since
                    devices.judge_certificate(change, bound.device, changed[bound.device])

    def _judge(self, verifier: Verifier, bound: Bound, wall: float) -> str:
        """Why a certificate is not accepted; empty if it is."""
        seen = self._seen.get(bound.device)
        if seen is None or seen.chain != bound.chain or not seen.since <= wall < seen.until:
            until, refusal = wall + _AGAIN, ""
            try:
                until = verifier.accept(bound.chain, wall).until
            except ConfigError as error:
                refusal = str(error)
            seen = self._seen[bound.device] = _Seen(bound.chain, wall, until, refusal)
        return seen.refusal
