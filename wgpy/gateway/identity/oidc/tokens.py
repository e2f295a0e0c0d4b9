"""What a provider signs, and with which keys (RFC 7515, 7517, 7519; OpenID Connect Core 1.0, section 3.1.3.7)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
"""Those with a public key. Not `none`, and not HS256, by which whoever has the public key could sign."""
LEEWAY: Final = 60  # seconds that the provider's clock may be off
MOST_KEYS: Final = 50
_SHORTEST_MODULUS: Final = 342  # characters of base64: 2048 bits
LONGEST_TOKEN: Final = 64 << 10  # characters


class Untrusted(Exception):
    """A token that proves nothing. The text says why, and nothing of what is in it."""


class UnknownKey(Untrusted):
    """A token by a key that is not among the provider's, as far as we know them: there may be new ones."""


def read_keys(document: Mapping[str, Any]) -> KeySet:
    """The keys of a JWK set that can verify signatures. Others are left out (RFC 7517, section 5)."""
    found: list[Key] = []
    keys = document.get("keys")
    for values in keys[:MOST_KEYS] if isinstance(keys, list) else ():
        if not isinstance(values, dict) or values.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if values["kty"] == "RSA" and len(str(values.get("n"))) < _SHORTEST_MODULUS:
            continue
        try:
            found.append(JWKRegistry.import_key(values))
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return KeySet(found)


def read_id_token(
    token: object,
    keys: KeySet,
    *,
    issuer: str,
    client_id: str,
    nonce: str | None,
    algorithms: Collection[str],
    wall: float,
) -> dict[str, Any]:
    """The claims of an ID token that is the issuer's, for this client, and of now. Raises Untrusted.

    `nonce` is what was sent with the request for authentication; None if the token is of a refresh, which had none.
    `algorithms` are those that the provider says it signs with, of which none is believed that is not in ALGORITHMS.
    """
    if not isinstance(token, str) or len(token) > LONGEST_TOKEN:
        raise Untrusted("there is no ID token")
    allowed = [name for name in ALGORITHMS if name in algorithms]
    try:
        claims = jwt.decode(token, keys, allowed).claims
        jwt.JWTClaimsRegistry(
            now=int(wall),
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        ).validate(claims)
    except InvalidKeyIdError:
        raise UnknownKey("its ID token is signed with a key that it does not publish") from None
    except JoseError as error:
        raise Untrusted(f"its ID token cannot be believed: {_reason(error)}") from None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise Untrusted("its ID token cannot be read") from None
    is_for_several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if ("azp" in claims or is_for_several) and claims.get("azp") != client_id:
        raise Untrusted("its ID token cannot be believed: invalid_claim: azp")
    if nonce is not None and claims.get("nonce") != nonce:
        raise Untrusted("its ID token cannot be believed: invalid_claim: nonce")
    return claims


def _reason(error: JoseError) -> str:
    claim = getattr(error, "claim", "")
    return f"{error.error}: {claim}" if isinstance(claim, str) and claim else error.error
