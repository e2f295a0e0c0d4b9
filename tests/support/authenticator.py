"""A WebAuthn authenticator in software, with a browser around it: its encodings are those of Yubico's fido2."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from fido2.cose import ES256, CoseKey
from fido2.webauthn import AttestationObject, AttestedCredentialData, AuthenticatorData, CollectedClientData

Flag = AuthenticatorData.FLAG


class Authenticator:
    """Has one passkey. What it does wrong, a test says by its attributes."""

    def __init__(self, origin: str, *, counts: bool = True) -> None:
        self.origin = origin
        self.flags = Flag.UP | Flag.UV
        self.counter = 0
        self.handle = b""
        self._step = int(counts)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._id = os.urandom(16)

    def create(self, options: dict[str, Any]) -> str:
        """What a page sends after `navigator.credentials.create` with these options."""
        self.handle = _bytes(options["user"]["id"])
        public = AttestedCredentialData.create(b"\0" * 16, self._id, _cose(self._key.public_key()))
        data = AuthenticatorData.create(
            self._rp(options["rp"]["id"]), self.flags | Flag.AT, self.counter, bytes(public)
        )
        attested = AttestationObject.create("none", data, {})
        response = {
            "clientDataJSON": _text(self._client_data(CollectedClientData.TYPE.CREATE, options["challenge"])),
            "attestationObject": _text(bytes(attested)),
        }
        return self._answer(response)

    def get(self, options: dict[str, Any]) -> str:
        """What a page sends after `navigator.credentials.get` with these options."""
        self.counter += self._step
        data = bytes(AuthenticatorData.create(self._rp(options["rpId"]), self.flags, self.counter))
        client_data = self._client_data(CollectedClientData.TYPE.GET, options["challenge"])
        signature = self._key.sign(data + sha256(client_data).digest(), ec.ECDSA(SHA256()))
        response = {
            "clientDataJSON": _text(client_data),
            "authenticatorData": _text(data),
            "signature": _text(signature),
            "userHandle": _text(self.handle),
        }
        return self._answer(response)

    def _client_data(self, kind: CollectedClientData.TYPE, challenge: str) -> bytes:
        return bytes(CollectedClientData.create(kind, _bytes(challenge), self.origin))

    def _rp(self, name: str) -> bytes:
        return sha256(name.encode()).digest()

    def _answer(self, response: dict[str, str]) -> str:
        name = _text(self._id)
        return json.dumps({"id": name, "rawId": name, "type": "public-key", "response": response})


def _cose(key: ec.EllipticCurvePublicKey) -> CoseKey:
    made: CoseKey = ES256.from_cryptography_key(key)  # type: ignore[no-untyped-call]
    return made


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
