"""The certificate of the HTTPS listener: a given one, which is read again when it is renewed, or one made here."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from wgpy.daemon.files import replace_own
from wgpy.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

log: Final = logging.getLogger("wgpy.gateway")

LIFETIME: Final = timedelta(days=825)  # longer ones Apple's systems refuse, whoever trusts them
_LOOKED: Final = 1.0  # seconds between looks at the files
_OTHERS: Final = 0o007


class Certificate:
    """A certificate chain and its key, in PEM. Raises ConfigError if they cannot be used."""

    def __init__(self, chain: Path, key: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._chain, self._key, self._clock = chain, key, clock
        self._state = self._look()
        self._looked_at = clock()
        self._context = _load(chain, key)

    def context(self) -> ssl.SSLContext:
        """What new connections use. Files that have changed are read again.

        If they cannot be used, as while somebody is writing them, what was read last stays in use.
        """
        if self._clock() >= self._looked_at + _LOOKED:
            self._looked_at = self._clock()
            state = self._look()
            if state != self._state:
                self._state = state
                try:
                    self._context = _load(self._chain, self._key)
                    log.info("%s: read again", self._chain)
                except ConfigError as error:
                    log.warning("%s; the former certificate stays in use", error)
        return self._context

    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, as browsers and `openssl x509 -fingerprint` show it."""
        pem = self._chain.read_text().partition("-----END CERTIFICATE-----")
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert("".join(pem[:2]))).hexdigest().upper()
        return ":".join(digest[place : place + 2] for place in range(0, len(digest), 2))

    def _look(self) -> tuple[object, ...]:
        return tuple(map(_state, (self._chain, self._key)))


def own_certificate(path: Path, url: str, now: datetime) -> Certificate:
    """The certificate that the gateway made itself and keeps at `path`, with its key; a new one if it is of no use.

    It is valid for the host of `url`, and for 825 days.
    """
    host = urlsplit(url).hostname or ""
    if not _is_of_use(path, host, now):
        try:
            replace_own(path, _made(host, now))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
    return Certificate(path, path)


def _made(host: str, now: datetime) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private


def _is_of_use(path: Path, host: str, now: datetime) -> bool:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    return _general_name(host) in names and now < certificate.not_valid_after_utc


def _general_name(host: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _load(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (chain, key):
        try:
            with path.open("rb") as file:
                if path == key and os.fstat(file.fileno()).st_mode & _OTHERS:
                    raise ConfigError(f"{path}: other users may read this key: chmod 640 {path}")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error

    def ask() -> str:
        raise ConfigError(f"{key}: has a passphrase, which nobody could type here; give a key without one")

    try:
        context.load_cert_chain(chain, key, ask)
    except ssl.SSLError as error:
        why = "is not the key of this certificate" if "MISMATCH" in str(error) else "expected a private key in PEM"
        raise ConfigError(f"{chain} and {key}: not usable for TLS ({error.reason or error}); {why}") from error
    return context


def _state(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_mtime_ns, status.st_size
