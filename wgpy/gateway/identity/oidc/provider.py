"""A provider of OpenID Connect as this gateway's client sees it."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus, urlencode

import httpx2
from joserfc.jwk import KeySet

from wgpy.errors import ConfigError
from wgpy.gateway.identity.directory import CannotAsk, Confirmed, Refused, Unavailable
from wgpy.gateway.identity.oidc.http import Answer, Http
from wgpy.gateway.identity.oidc.tokens import ALGORITHMS, UnknownKey, Untrusted, read_id_token, read_keys
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.oidc import Settings, check_url
from wgpy.gateway.policy.people import Person

PATIENCE: Final = 600.0  # seconds that a person may take to sign in at the provider
FRESH: Final = 3600.0  # seconds for which the provider's document and keys are believed to be as they were
RETRY: Final = 5.0  # seconds between two attempts to read the document, however many people want to sign in
KEYS_RETRY: Final = 60.0  # seconds between two readings of the keys because of a token by an unknown one
_SIZE: Final = 32  # bytes of what nobody can guess
_ERROR: Final = re.compile(r"[a-z_]{1,60}")  # RFC 6749, section 4.1.2.1
_GONE: Final = ("invalid_grant", "invalid_request", "access_denied", "login_required", "interaction_required")
"""How providers say that a code or a refresh token is good for nothing: Authlib's by `invalid_request`."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A person's way to the provider and back: what only the browser that went there has, sealed by the gateway."""

    directory: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    began: float
    """When it began, in seconds since 1970."""


class _Document(NamedTuple):
    """What the provider publishes about itself (OpenID Connect Discovery 1.0, section 3)."""

    values: Mapping[str, Any]
    read_at: float
    """On the monotonic clock."""


class _Keys(NamedTuple):
    keys: KeySet
    read_at: float


class Provider:
    """The client for one provider, in one event loop. `clock` is monotonic, `wall` the time since 1970, in seconds."""

    def __init__(
        self,
        directory: Directory,
        secret: bytes,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.directory: Directory = directory
        self._settings = Settings(**directory.settings)
        self._secret = secret.decode()
        self._clock, self._wall = clock, wall
        self._http = Http(directory.name, self._settings.ca, transport)
        self._document: _Document | None = None
        self._keys: _Keys | None = None
        self._failed: tuple[float, Unavailable] | None = None  # the last reading of the document
        self._reading = asyncio.Lock()

    async def begin(self, redirect_uri: str) -> tuple[str, Attempt]:
        """Where to send a person's browser, and what it has to bring back. Raises Unavailable."""
        document = await self._read_document()
        attempt = Attempt(self.directory.name, _random(), _random(), _random(), self._wall())
        challenge = urlsafe_b64encode(sha256(attempt.verifier.encode()).digest()).decode().rstrip("=")
        parameters = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._scopes(document)),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **self._settings.parameters,
        }
        url = self._url(document, "authorization_endpoint")
        return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}", attempt

    async def finish(self, attempt: Attempt, answer: Mapping[str, str], redirect_uri: str) -> Confirmed:
        """Who has come back with this answer. Raises Refused and Unavailable."""
        if attempt.directory != self.directory.name or not 0 <= self._wall() - attempt.began <= PATIENCE:
            raise self._refused("this took too long, or began elsewhere; sign in again")
        if not hmac.compare_digest(attempt.state.encode(), answer.get("state", "").encode()):
            raise self._refused("this answer is not to the question that this browser asked; sign in again")
        document = await self._read_document()
        # Another provider's answer is recognized by its sender's name (RFC 9207).
        expects_issuer = document.get("authorization_response_iss_parameter_supported") is True
        if ("iss" in answer or expects_issuer) and answer.get("iss") != self._settings.issuer:
            raise self._refused("this answer is another provider's; sign in again")
        if "error" in answer or not answer.get("code"):
            raise self._refused(f"the provider does not sign you in ({_error(answer)})")
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        tokens = await self._ask_for_tokens(document, form)
        if tokens.status != 200:
            if _error(tokens.values) in _GONE:
                raise self._refused("the provider does not know this sign-in (any more); sign in again")
            raise self._unavailable(document, tokens)
        claims = await self._read_id_token(document, tokens.values.get("id_token"), attempt.nonce)
        person = await self._read_person(document, tokens.values, claims, claims["sub"])
        return Confirmed(person, self._kept(document, tokens.values))

    async def check(self, subject: str, token: bytes) -> Confirmed | None:
        """Whether a person is still there, by the refresh token or, until it expires, by the access token.

        None if they are not. Raises Unavailable, and CannotAsk if neither token is of use any more.
        """
        kept: dict[str, Any] = json.loads(token)
        document = await self._read_document()
        if "refresh_token" in kept:
            return await self._refresh(document, kept, subject)
        if self._wall() >= kept["expires_at"]:
            raise CannotAsk
        answer = await self._ask_userinfo(document, kept["access_token"])
        if answer.status in (401, 403):
            return None
        self._check_userinfo(answer, subject)
        return Confirmed(self._person(answer.values), token)

    async def probe(self) -> dict[str, Any]:
        """What the provider says about itself, and whether it has keys. Raises Unavailable."""
        document = await self._read_document()
        keys = await self._read_keys(document)
        return {
            "issuer": document["issuer"],
            "sign_in": self._url(document, "authorization_endpoint"),
            "scopes": list(self._scopes(document)),
            "keys": len(keys.keys),
            "sign_out": document.get("end_session_endpoint", ""),
        }

    async def sign_out_url(self, token: bytes | None, return_to: str) -> str:
        """Where to send a browser so that the provider signs the person out as well; empty if there is no such address.

        Source: OpenID Connect RP-Initiated Logout 1.0. Raises Unavailable.
        """
        document = await self._read_document()
        if not document.get("end_session_endpoint"):
            return ""
        url = self._url(document, "end_session_endpoint")
        parameters = {"client_id": self._settings.client_id, "post_logout_redirect_uri": return_to}
        if token and (hint := json.loads(token).get("id_token")):
            parameters["id_token_hint"] = hint
        return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def _read_document(self) -> Mapping[str, Any]:
        """The provider's document: a new one each hour. One that cannot be read is not asked for again at once."""
        async with self._reading:
            now = self._clock()
            if self._document and now - self._document.read_at < FRESH:
                return self._document.values
            if self._failed and now - self._failed[0] < RETRY:
                raise self._failed[1]
            try:
                values = await self._fetch_document()
            except Unavailable as error:
                self._failed = (self._clock(), error)
                raise
            self._document, self._failed = _Document(values, self._clock()), None
            return values

    async def _fetch_document(self) -> Mapping[str, Any]:
        url = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        answer = await self._http.get(url)
        if answer.status != 200:
            raise self._http.unavailable(f"{url} answers with the status {answer.status}")
        if answer.values.get("issuer") != self._settings.issuer:
            raise self._http.unavailable(
                f"the provider calls itself {answer.values.get('issuer')!a:.200}, and not {self._settings.issuer}; "
                "give the issuer exactly as the provider writes it"
            )
        for key in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            self._url(answer.values, key)
        return answer.values

    async def _read_keys(self, document: Mapping[str, Any], *, retry: float = FRESH) -> KeySet:
        """The provider's keys, read anew if they are `retry` seconds old."""
        async with self._reading:
            if self._keys is None or self._clock() - self._keys.read_at >= retry:
                url = self._url(document, "jwks_uri")
                answer = await self._http.get(url)
                keys = read_keys(answer.values) if answer.status == 200 else KeySet([])
                if not keys:
                    raise self._http.unavailable(f"{url} has no key that signatures can be checked with")
                self._keys = _Keys(keys, self._clock())
            return self._keys.keys

    async def _read_id_token(self, document: Mapping[str, Any], token: object, nonce: str | None) -> dict[str, Any]:
        """The claims of an ID token. If its key is unknown, the provider may have new ones, since a while at least."""
        algorithms = _texts(document.get("id_token_signing_alg_values_supported")) or list(ALGORITHMS)
        retry = FRESH
        while True:
            keys = await self._read_keys(document, retry=retry)
            try:
                return read_id_token(
                    token,
                    keys,
                    issuer=self._settings.issuer,
                    client_id=self._settings.client_id,
                    nonce=nonce,
                    algorithms=algorithms,
                    wall=self._wall(),
                )
            except UnknownKey as error:
                if retry == KEYS_RETRY:
                    raise self._http.unavailable(str(error)) from None
                retry = KEYS_RETRY
            except Untrusted as error:
                raise self._http.unavailable(str(error)) from None

    async def _ask_for_tokens(self, document: Mapping[str, Any], form: Mapping[str, str]) -> Answer:
        """Ask at the token endpoint, as this client (RFC 6749, section 2.3.1)."""
        url, client_id = self._url(document, "token_endpoint"), self._settings.client_id
        if not self._secret:
            return await self._http.post(url, {**form, "client_id": client_id})
        methods = _texts(document.get("token_endpoint_auth_methods_supported")) or ["client_secret_basic"]
        if "client_secret_basic" in methods:
            return await self._http.post(url, form, (quote_plus(client_id), quote_plus(self._secret)))
        return await self._http.post(url, {**form, "client_id": client_id, "client_secret": self._secret})

    async def _ask_userinfo(self, document: Mapping[str, Any], access_token: object) -> Answer:
        if not isinstance(access_token, str) or not access_token.isascii() or not access_token.isprintable():
            raise self._http.unavailable("the provider gives no access token")
        return await self._http.get(self._url(document, "userinfo_endpoint"), access_token)

    def _check_userinfo(self, answer: Answer, subject: str) -> None:
        if answer.status != 200:
            raise self._http.unavailable(f"the provider does not say who somebody is (status {answer.status})")
        if answer.values.get("sub") != subject:  # Core, section 5.3.2
            raise self._http.unavailable("the provider says who somebody else is")

    async def _refresh(self, document: Mapping[str, Any], kept: dict[str, Any], subject: str) -> Confirmed | None:
        form = {"grant_type": "refresh_token", "refresh_token": kept["refresh_token"]}
        tokens = await self._ask_for_tokens(document, form)
        if tokens.status != 200:
            if _error(tokens.values) in _GONE:
                return None
            raise self._unavailable(document, tokens)
        kept |= {
            key: value for key in ("refresh_token", "id_token") if isinstance(value := tokens.values.get(key), str)
        }
        new = json.dumps(kept).encode()
        try:
            claims: dict[str, Any] = {}
            if "id_token" in tokens.values:
                claims = await self._read_id_token(document, tokens.values["id_token"], None)
            return Confirmed(await self._read_person(document, tokens.values, claims, subject), new)
        except Unavailable as error:
            error.token = new  # the former one may be of no use any more
            raise

    async def _read_person(
        self, document: Mapping[str, Any], tokens: Mapping[str, Any], claims: dict[str, Any], subject: str
    ) -> Person:
        """A person by the claims of their ID token, and by what the provider says beside it if groups are missing."""
        if claims and claims["sub"] != subject:
            raise self._http.unavailable("the provider says who somebody else is")
        if not claims or (self._settings.groups_claim not in claims and document.get("userinfo_endpoint")):
            answer = await self._ask_userinfo(document, tokens.get("access_token"))
            self._check_userinfo(answer, subject)
            claims = {**answer.values, **claims}
        return self._person(claims)

    def _kept(self, document: Mapping[str, Any], tokens: Mapping[str, Any]) -> bytes | None:
        """What is needed to ask about a person again, of what the provider has just given; None if that is nothing."""
        kept = {"id_token": tokens["id_token"]}
        lasts = tokens.get("expires_in")
        if isinstance(tokens.get("refresh_token"), str):
            kept["refresh_token"] = tokens["refresh_token"]
        elif document.get("userinfo_endpoint") and isinstance(lasts, int | float):
            kept |= {"access_token": tokens.get("access_token"), "expires_at": self._wall() + lasts}
        else:
            return None
        return json.dumps(kept).encode()

    def _person(self, claims: Mapping[str, Any]) -> Person:
        try:
            return self._settings.person(self.directory.name, claims)
        except ConfigError as error:
            raise self._refused(str(error)) from None

    def _scopes(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        return self._settings.scopes_of(_texts(document.get("scopes_supported")))

    def _url(self, document: Mapping[str, Any], key: str) -> str:
        try:
            return check_url(key, document.get(key))
        except ConfigError as error:
            raise self._http.unavailable(str(error)) from None

    def _unavailable(self, document: Mapping[str, Any], answer: Answer) -> Unavailable:
        error = _error(answer.values)
        remedy = {
            "invalid_client": "; it does not know this client, or the secret is wrong",
            "unauthorized_client": "; it does not let this client sign people in",
        }.get(error, "")
        url = self._url(document, "token_endpoint")
        return self._http.unavailable(f"{url} answers with the status {answer.status} ({error}){remedy}")

    def _refused(self, why: str) -> Refused:
        return Refused(f"directory {self.directory.name}: {why}")


def _random() -> str:
    return secrets.token_urlsafe(_SIZE)


def _error(answer: Mapping[str, Any]) -> str:
    """The error that an answer names, if it is one: what else is in the answer may be anybody's words."""
    error = answer.get("error")
    return error if isinstance(error, str) and _ERROR.fullmatch(error) else "it does not say why"


def _texts(values: object) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
