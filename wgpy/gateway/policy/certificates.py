"""Client certificates: whose are accepted, who is meant by one, and what its owner signs to enrol a device."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.policy.problems import Problems
from wgpy.keys import PublicKey

ENROL_PATH: Final = "/api/v1/enrol"  # of a proof
FRESH: Final = 300.0  # seconds that a proof may be old, or ahead of our clock
CRL_MARK: Final = "-----BEGIN X509 CRL-----"
LONGEST_LISTS: Final = 700 << 10  # characters of lists of revoked certificates in the database, in PEM
LONGEST_CHAIN: Final = 64 << 10  # characters of a certificate with its intermediates, in PEM


class NameFrom(StrEnum):
    """What of a certificate names its user."""

    CN = "cn"
    """The subject's common name."""
    EMAIL = "email"
    """The e-mail address in subjectAltName."""
    UPN = "upn"
    """The user principal name in subjectAltName, as Active Directory's authorities write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The authority whose client certificates are accepted. Raises Unusable for values that cannot be used."""

    ca: str
    """Its certificates in PEM: those that sign themselves are trusted, the others help to build chains."""
    crl: str = ""
    """The lists of revoked certificates, one of each authority of a chain; empty for none.

    That is the path of a file on each gateway, which is reread, or the lists themselves in PEM.
    """
    name_from: NameFrom = NameFrom.CN

    def __post_init__(self) -> None:
        problems = Problems()
        with problems.of("name_from"):
            object.__setattr__(self, "name_from", _name_from(self.name_from))
        if len(self.crl) > LONGEST_LISTS:
            why = f"more than {LONGEST_LISTS >> 10} KiB; name a file on the gateway instead, by its path"
            problems.add("crl", f"crl: {why}")
        elif self.has_file and not self.crl.startswith("/"):
            why = "expected the lists in PEM, or an absolute path, because the gateway rereads the file"
            problems.add("crl", f"crl {self.crl[:100]!a}: {why}")
        problems.check()

    @property
    def has_file(self) -> bool:
        """Whether the lists of revoked certificates are in a file."""
        return bool(self.crl) and CRL_MARK not in self.crl

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {"ca": self.ca, "crl": self.crl, "name_from": self.name_from.value}


def _name_from(text: str) -> NameFrom:
    try:
        return NameFrom(text)
    except ValueError:
        raise ConfigError(f"name from {text!a}: expected one of {', '.join(NameFrom)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the owner of a certificate claims: that a device of this name and key is theirs."""

    url: str
    """The endpoint's `url`: a proof for one gateway is of no use at another."""
    device: str
    public_key: PublicKey
    at: int
    """When the proof was made, in seconds since 1970."""

    def message(self) -> bytes:
        """What is signed with the certificate's key.

        No other protocol signs what begins like this, and no part of it can have the newline that ends it.
        """
        lines = ("wgpy gateway enrolment 1", self.url, self.device, self.public_key.base64(), str(self.at))
        return "".join(f"{line}\n" for line in lines).encode()

    def check_fresh(self, wall: float) -> None:
        """Raises ConfigError for a proof that is not of now, which is `wall` in seconds since 1970."""
        if abs(wall - self.at) > FRESH:
            raise ConfigError(
                f"the proof was made {abs(wall - self.at):.0f} seconds {'ago' if wall > self.at else 'from now'}: set "
                f"both clocks, and send it within {FRESH:.0f} seconds"
            )
