"""`POST /api/v1/enrol`: a device is enrolled, or signed in again, by a client certificate.

Nobody has to be signed in, and TLS may end at a proxy: the certificate's key has signed the device's key.
"""

from __future__ import annotations

import json
import logging
import time
from base64 import b64decode
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from wgpy.errors import ConfigError
from wgpy.gateway.identity.certificates import NotAccepted
from wgpy.gateway.identity.enrolment import Verifiers, enrol, prove
from wgpy.gateway.policy.certificates import ENROL_PATH, LONGEST_CHAIN, Proof
from wgpy.gateway.policy.names import checked
from wgpy.gateway.web.problems import problem
from wgpy.gateway.web.security import body_of
from wgpy.gateway.web.site import address_of, site_of
from wgpy.keys import PublicKey

log: Final = logging.getLogger("wgpy.gateway")

_LONGEST: Final = LONGEST_CHAIN + 8192  # bytes
_LAST: Final = 253402300800  # seconds since 1970: the end of the year 9999
_VERIFIERS: Final = Verifiers()


def routes() -> list[BaseRoute]:
    """The routes of this part of the site."""
    return [Route(ENROL_PATH, _enrol, methods=["POST"])]


async def _enrol(request: Request) -> Response:
    return await run_in_threadpool(_answer, request, await body_of(request, "a proof", _LONGEST))


def _answer(request: Request, body: bytes) -> Response:
    site, address = site_of(request), address_of(request)
    if wait := site.throttle.attempt(None, address, time.monotonic()):
        return problem(429, f"there were too many attempts from {address}; try again in {wait:.0f} seconds")
    chain, proof, signature = _read(body, site.url)
    try:
        with site.database.read() as connection:  # strangers do not keep others from writing
            accepted = prove(connection, _VERIFIERS, chain, proof, signature, site.wall())
        with site.database.change("certificate") as change:
            device, file = enrol(change, chain, proof, accepted)
    except NotAccepted as error:
        log.warning("enrolment of %a from %s refused: %s", proof.device, address, error)
        return problem(403, str(error))
    site.throttle.succeeded(None, address, time.monotonic())
    return JSONResponse({"device": device.json(), "file": file})


def _read(body: bytes, url: str) -> tuple[str, Proof, bytes]:
    """The certificate with its intermediates, the proof and its signature. Raises ConfigError."""
    try:
        found: dict[str, Any] = json.loads(body)
        chain, name, key, at, signature = (
            found[field] for field in ("certificate", "name", "public_key", "at", "signature")
        )
        if not (isinstance(chain, str) and isinstance(name, str) and type(at) is int and 0 <= at < _LAST):
            raise TypeError
        proof = Proof(url=url, device=checked("device", name), public_key=PublicKey.from_base64(key), at=at)
        return chain, proof, b64decode(signature, validate=True)
    except (KeyError, TypeError, RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        pass
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
    raise ConfigError(
        "expected a JSON object with certificate (PEM), name, public_key (base64), at (seconds since 1970) and "
        "signature (base64)"
    )
