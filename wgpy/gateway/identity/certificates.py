"""Client certificates (RFC 5280): whether one is accepted now, who is meant by it, and what its key has signed.

Chains are built by `cryptography.x509.verification`: signatures, dates, path lengths, key usages, name constraints and
critical extensions. It does not look at lists of revoked certificates, which is done here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
)

from wgpy.errors import ConfigError
from wgpy.gateway.policy.certificates import CRL_MARK, LONGEST_CHAIN, Authority, NameFrom, Proof

DEEPEST: Final = 5  # authorities between a certificate and one that is trusted
MOST: Final = 10  # certificates that somebody may send
LARGEST_LIST: Final = 64 << 20  # bytes of a file of revoked certificates
_WEAKEST: Final = 2048  # bits of an RSA key
_UPN: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")  # szOID_NT_PRINCIPAL_NAME, [MS-WCCE] 2.2.2.7.7.1


class NotAccepted(ConfigError):
    """A certificate or a proof is not accepted. The text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A certificate that is accepted now."""

    name: str
    """Who is meant by it."""
    until: float
    """When it has to be looked at again at the latest, in seconds since 1970: something of its chain expires then."""
    leaf: x509.Certificate
    subject: str


class Verifier:
    """Accepts certificates of one authority. Raises ConfigError if its certificates cannot be used.

    `lists` are the revoked certificates, as `read_lists` reads them; None if the authority has none.
    """

    def __init__(self, authority: Authority, lists: bytes | None) -> None:
        found = _certificates(authority.ca.encode(), "the authority's certificates")
        try:
            roots = [each for each in found if each.issuer == each.subject] or found
        except ValueError as error:
            raise NotAccepted(f"the authority's certificates: {_line(error)}") from error
        self._name_from = authority.name_from
        self._between = [each for each in found if each not in roots]
        self._builder = (
            PolicyBuilder()
            .store(Store(roots))
            .max_chain_depth(DEEPEST)
            .extension_policies(ca_policy=_AUTHORITIES, ee_policy=_PEOPLE)
        )
        self._lists = None if lists is None else _Lists(lists)

    def accept(self, chain: str, wall: float) -> Accepted:
        """Verify a certificate, in PEM with its intermediates behind it, at `wall` in seconds since 1970.

        Raises NotAccepted.
        """
        if len(chain) > LONGEST_CHAIN:
            raise NotAccepted(f"the certificate has more than {LONGEST_CHAIN} characters")
        leaf, *others = _certificates(chain.encode(errors="replace"), "the certificate")
        if len(others) >= MOST:
            raise NotAccepted(f"the certificate comes with more than {MOST} others")
        verifier = self._builder.time(datetime.fromtimestamp(wall, UTC)).build_client_verifier()
        try:
            path = verifier.verify(leaf, [*others, *self._between]).chain
            _check_key(leaf)
            until = min(each.not_valid_after_utc.timestamp() for each in path)
            if self._lists:
                until = min(until, self._lists.check(path, wall))
            return Accepted(self._name(path), until, leaf, leaf.subject.rfc4514_string())
        except NotAccepted:
            raise
        except Exception as error:  # a stranger has written it, and the library has many errors for what is wrong
            raise NotAccepted(f"the certificate is not accepted: {_line(error)}") from error

    def _name(self, path: list[x509.Certificate]) -> str:
        """Who is meant. Raises ValueError unless there is exactly one name."""
        leaf = path[0]
        if self._name_from is not NameFrom.EMAIL and any(_has(each, ExtensionOID.NAME_CONSTRAINTS) for each in path):
            # They are for other kinds of names, so whoever is bound by them could write any name here.
            raise ValueError(f"an authority has name constraints, which do not apply to a {self._name_from}")
        names = _names(leaf, self._name_from)
        if len(names) != 1:
            raise ValueError(f"it has {len(names)} names of the kind {self._name_from}, and should have one")
        return names[0]


class _Lists:
    """Lists of revoked certificates (RFC 5280, section 5). Raises NotAccepted if they cannot be read."""

    def __init__(self, data: bytes) -> None:
        self._by_issuer: dict[x509.Name, list[x509.CertificateRevocationList]] = {}
        try:
            for each in _each_list(data):
                self._by_issuer.setdefault(each.issuer, []).append(each)
        except Exception as error:  # as above: a list may be of an authority that others run
            raise NotAccepted(f"the list of revoked certificates cannot be read: {_line(error)}") from error

    def check(self, path: list[x509.Certificate], wall: float) -> float:
        """Raises NotAccepted if one of a path is revoked, or that is not known. Returns until when this holds."""
        until = float("inf")
        for certificate, issuer in pairwise(path):
            found = self.newest(issuer, wall)
            if found.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                raise NotAccepted(f"the certificate {_called(certificate)} is revoked")
            assert found.next_update_utc is not None
            until = min(until, found.next_update_utc.timestamp())
        return until

    def signed(self, issuer: x509.Certificate) -> list[x509.CertificateRevocationList]:
        """Those that this authority has signed."""
        return [each for each in self._by_issuer.get(issuer.subject, ()) if _is_signed(each, issuer)]

    def newest(self, issuer: x509.Certificate, wall: float) -> x509.CertificateRevocationList:
        """The newest list that this authority has signed. Raises NotAccepted if there is none that is good now."""
        what = f"list of certificates that {_called(issuer)} has revoked"
        signed = self.signed(issuer)
        if not signed:
            raise NotAccepted(f"there is no {what}: add it to the authority's lists")
        newest = max(signed, key=lambda each: each.last_update_utc)
        if newest.next_update_utc is None or newest.next_update_utc.timestamp() <= wall:
            raise NotAccepted(f"the {what} is out of date: renew it")
        if newest.last_update_utc.timestamp() > wall + _AHEAD:
            raise NotAccepted(f"the {what} is of the future: look at the clocks")
        if odd := [each.oid.dotted_string for each in newest.extensions if each.critical]:
            raise NotAccepted(f"the {what} is partial (extension {odd[0]}): use a whole one")
        return newest


_AHEAD: Final = 300.0  # seconds that an authority's clock may be ahead of ours


def check_proof(leaf: x509.Certificate, proof: Proof, signature: bytes) -> None:
    """Whether the certificate's key has signed a proof. Raises NotAccepted.

    By RSA with PKCS #1 v1.5, ECDSA, each with SHA-256, or Ed25519: what `openssl` makes of these keys by default.
    """
    key, message = leaf.public_key(), proof.message()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            raise NotAccepted("the certificate's key is neither RSA, nor ECDSA, nor Ed25519")
    except InvalidSignature:
        raise NotAccepted("the signature is not by the certificate's key, or for something else") from None


@dataclass(frozen=True, slots=True)
class Facts:
    """What administrators see of a certificate of an authority."""

    subject: str
    issuer: str
    expires: float
    """In seconds since 1970."""
    fingerprint: str
    """SHA-256, as openssl writes it."""
    revoked: int | None = None
    """How many certificates its newest list has; None if it has none that is good now."""
    next_update: float | None = None
    """When that list is out of date, in seconds since 1970."""
    refusal: str = ""
    """Why what it has signed is not accepted now; empty if that is."""


def facts(pem: str, lists: bytes | None, wall: float) -> list[Facts]:
    """What the certificates of an authority and its lists of revoked ones say at `wall`, in seconds since 1970.

    Raises NotAccepted if they cannot be read.
    """
    read = None if lists is None else _Lists(lists)
    return [_facts(each, read, wall) for each in _certificates(pem.encode(), "the authority's certificates")]


def _facts(certificate: x509.Certificate, lists: _Lists | None, wall: float) -> Facts:
    expires, revoked, update = certificate.not_valid_after_utc.timestamp(), None, None
    refusal = "it has expired" if expires <= wall else ""
    try:
        if lists:
            found = lists.newest(certificate, wall)
            assert found.next_update_utc is not None
            revoked, update = len(found), found.next_update_utc.timestamp()
    except NotAccepted as error:
        refusal = refusal or str(error)
    return Facts(
        subject=_shown(certificate.subject),
        issuer=_shown(certificate.issuer),
        expires=expires,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        revoked=revoked,
        next_update=update,
        refusal=refusal,
    )


def check_lists(authority: Authority, lists: bytes | None) -> None:
    """Check lists of revoked certificates before they count. Raises NotAccepted if none is by the authority."""
    if lists is None:
        return
    read = _Lists(lists)
    if not any(map(read.signed, _certificates(authority.ca.encode(), "the authority's certificates"))):
        raise NotAccepted("crl: none of these lists of revoked certificates is signed by the authority")


def lists_in_pem(path: Path) -> str:
    """The lists of a file, in PEM or one in DER, as PEM without whatever else is there. Raises NotAccepted."""
    try:
        return "".join(each.public_bytes(Encoding.PEM).decode() for each in _each_list(_read(path)))
    except NotAccepted:
        raise
    except Exception as error:  # as in _Lists
        raise NotAccepted(f"{path}: expected lists of revoked certificates in PEM or DER: {_line(error)}") from error


def read_lists(authority: Authority) -> bytes | None:
    """The lists of revoked certificates; None if the authority has none. Raises NotAccepted for an unreadable file."""
    if not authority.has_file:
        return authority.crl.encode() or None
    return _read(Path(authority.crl))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > LARGEST_LIST:
                raise NotAccepted(f"{path}: a list of revoked certificates with more than 64 MiB")
            return file.read(LARGEST_LIST)
    except OSError as error:
        raise NotAccepted(f"the list of revoked certificates {path}: {error.strerror}") from error


def _must_be_authority(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("it is not an authority's")


# As for web sites, but for what private authorities (easy-rsa, Active Directory) do: the first leaves basicConstraints
# uncritical, and people's certificates need no subjectAltName.
_AUTHORITIES: Final = ExtensionPolicy.webpki_defaults_ca().require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, _must_be_authority
)
_PEOPLE: Final = ExtensionPolicy.webpki_defaults_ee().may_be_present(
    x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
)


def _check_key(leaf: x509.Certificate) -> None:
    """Raises ValueError for a certificate that is not for clients, or whose key is weak or not for signatures."""
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value if _has(
        leaf, ExtensionOID.EXTENDED_KEY_USAGE
    ) else ()  # fmt: skip
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise ValueError("its extended key usage does not have clientAuth")
    if _has(leaf, ExtensionOID.KEY_USAGE):
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.digital_signature:
            raise ValueError("its key usage does not have digitalSignature")
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _WEAKEST:
        raise ValueError(f"its RSA key has fewer than {_WEAKEST} bits")


def _names(leaf: x509.Certificate, kind: NameFrom) -> list[str]:
    if kind is NameFrom.CN:
        return [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not _has(leaf, ExtensionOID.SUBJECT_ALTERNATIVE_NAME):
        return []
    other = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if kind is NameFrom.EMAIL:
        return other.get_values_for_type(x509.RFC822Name)
    return [
        asn1.decode_der(str, each.value) for each in other.get_values_for_type(x509.OtherName) if each.type_id == _UPN
    ]


def _certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise NotAccepted(f"{what}: expected certificates in PEM: {_line(error)}") from error


def _each_list(data: bytes) -> Iterable[x509.CertificateRevocationList]:
    """The lists of a file: one in DER, or any number in PEM."""
    mark = CRL_MARK.encode()
    if mark not in data:
        return [x509.load_der_x509_crl(data)]
    return [x509.load_pem_x509_crl(mark + part) for part in data.split(mark)[1:]]


def _is_signed(each: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if _has(issuer, ExtensionOID.KEY_USAGE):
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.crl_sign:
            return False
    try:
        return each.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # TypeError for a key that signs no lists
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _has(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bool:
    return any(each.oid == oid for each in certificate.extensions)


def _called(certificate: x509.Certificate) -> str:
    return ascii(certificate.subject.rfc4514_string()[:100])


def _shown(name: x509.Name) -> str:
    return "".join(filter(str.isprintable, name.rfc4514_string()))[:300]


def _line(error: Exception) -> str:
    text = str(error).partition(" (encountered processing")[0].removeprefix("validation failed: ")
    return "".join(letter for letter in text.removeprefix("candidates exhausted: ") if letter.isprintable())[:300]
