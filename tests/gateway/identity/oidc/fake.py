"""A provider that lies as a test wants it to. That its truths are as those of real ones, other tests show."""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from wgpy.gateway.identity.oidc import Attempt, Provider
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.oidc import Settings

ISSUER = "https://id.example.org"
HERE = "https://vpn.example.org/sign-in/directory/corp/callback"
SETTINGS = Settings(issuer=ISSUER, client_id="vpn")


class Fake:
    """The provider, its clock, and the client for it. Its public fields change what it says."""

    def __init__(self, settings: Settings = SETTINGS, secret: bytes = b"a secret") -> None:
        self.now = 1_800_000_000.0
        self.key = ECKey.generate_key("P-256", {"kid": "one"})
        self.published = [self.key]
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.document: dict[str, Any] = {}
        self.tokens: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {"sub": "4711", "groups": ["from userinfo"]}
        self.answers: dict[str, Callable[[httpx2.Request], httpx2.Response]] = {}
        self.asked: Counter[str] = Counter()
        self.form: dict[str, str] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.refresh_tokens: set[str] = set()
        self.provider = self.client(Directory(name="corp", kind="oidc", settings=settings.json()), secret)

    def client(self, directory: Directory, secret: bytes) -> Provider:
        """A client for the provider, which is called as the directory is."""
        return Provider(
            directory,
            secret,
            clock=lambda: self.now,
            wall=lambda: self.now,
            transport=httpx2.MockTransport(self._handle),
        )

    async def sign_in(self, **answer: str) -> Any:
        """Begin, have the person sign in at the provider, and finish with this answer in the place of its own."""
        attempt, right = await self.go()
        return await self.provider.finish(attempt, {**right, **answer}, HERE)

    async def go(self) -> tuple[Attempt, dict[str, str]]:
        """Begin, and have the person sign in at the provider: what the browser then has and brings."""
        url, attempt = await self.provider.begin(HERE)
        query = dict(parse_qsl(urlsplit(url).query))
        self.codes["a code"] = query
        return attempt, {"code": "a code", "state": query["state"]}

    def id_token(self, nonce: str | None = None) -> str:
        """A token as it should be, but for what the test wants of it."""
        claims = {
            "iss": ISSUER,
            "aud": "vpn",
            "sub": "4711",
            "iat": int(self.now),
            "exp": int(self.now) + 300,
            "preferred_username": "alice",
            "groups": ["vpn-users"],
            **({"nonce": nonce} if nonce else {}),
            **self.claims,
        }
        header = {"alg": "ES256", "kid": self.key.kid, **self.header}
        present = {name: value for name, value in claims.items() if value is not None}
        if header["alg"] not in ("none", "HS256"):
            return jwt.encode(header, present, self.key, algorithms=[header["alg"]])
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, present))
        public = self.key.as_pem(private=False)  # with which anybody can make an HMAC
        return f"{signed}.{_base64(hmac.digest(public, signed.encode(), 'sha256')) if header['alg'] != 'none' else ''}"

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked[path] += 1
        if path in self.answers:
            return self.answers[path](request)
        if path == "/.well-known/openid-configuration":
            return httpx2.Response(200, json=self._document())
        if path == "/keys":
            return httpx2.Response(200, json=KeySet(list(self.published)).as_dict(private=False))
        if path == "/userinfo":
            assert request.headers["authorization"] == "Bearer an access token"
            return httpx2.Response(200, json=self.userinfo)
        assert path == "/token"
        self.form = dict(parse_qsl(request.content.decode()))
        return self._token(request)

    def _document(self) -> dict[str, Any]:
        found = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/auth",
            "token_endpoint": f"{ISSUER}/token",
            "userinfo_endpoint": f"{ISSUER}/userinfo",
            "jwks_uri": f"{ISSUER}/keys",
            "end_session_endpoint": f"{ISSUER}/logout?ui=plain",
            "scopes_supported": ["openid", "groups", "offline_access"],
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
            **self.document,
        }
        return {key: value for key, value in found.items() if value is not None}

    def _token(self, request: httpx2.Request) -> httpx2.Response:
        basic = request.headers.get("authorization", "").removeprefix("Basic ")
        assert b64decode(basic).decode() == "vpn:a+secret" or self.form.get("client_id") == "vpn"
        nonce = None
        if self.form["grant_type"] == "refresh_token":
            if self.form["refresh_token"] not in self.refresh_tokens:
                return httpx2.Response(400, json={"error": "invalid_grant"})
        else:
            query = self.codes.pop(self.form["code"], None)
            challenge = _base64(sha256(self.form["code_verifier"].encode()).digest())
            if (
                query is None
                or (query["code_challenge"], query["code_challenge_method"]) != (challenge, "S256")
                or query["redirect_uri"] != self.form["redirect_uri"]
            ):
                return httpx2.Response(400, json={"error": "invalid_grant"})
            nonce = query["nonce"]
        self.refresh_tokens = {f"refresh {self.asked['/token']}"}  # each is for one use
        values = {
            "token_type": "Bearer",
            "access_token": "an access token",
            "expires_in": 600,
            "refresh_token": next(iter(self.refresh_tokens)),
            "id_token": self.id_token(nonce),
            **self.tokens,
        }
        return httpx2.Response(200, json={key: value for key, value in values.items() if value is not None})


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
