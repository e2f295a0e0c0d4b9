"""Certificates made by openssl, which is not ours: authorities, what they sign, and lists of what they revoke."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

CA = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\n"
"""The extensions of an authority."""
CLIENT = "extendedKeyUsage = clientAuth\n"
_serials = count(1000)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its key, in PEM files."""

    certificate: Path
    key: Path
    serial: int

    def pem(self, *others: Signed) -> str:
        """The certificate in PEM, with others behind it."""
        return "".join(each.certificate.read_text() for each in (self, *others))


@dataclass(slots=True)
class Authority:
    """An authority of certificates in a directory."""

    signed: Signed
    directory: Path
    revoked: list[int] = field(default_factory=list)

    def pem(self) -> str:
        """Its certificate in PEM."""
        return self.signed.pem()

    @classmethod
    def root(cls, directory: Path, name: str = "Root", extensions: str = "") -> Authority:
        """An authority that signs itself."""
        directory.mkdir(parents=True, exist_ok=True)
        return cls(made(directory, f"/CN={name}", CA + extensions, None), directory)

    def authority(self, name: str, extensions: str = "") -> Authority:
        """An authority below this one."""
        return Authority(made(self.directory, f"/CN={name}", CA + extensions, self.signed), self.directory)

    def sign(self, subject: str, extensions: str = "", days: int = 30, key: str = "ec") -> Signed:
        """Sign a certificate for a subject such as /CN=alice."""
        return made(self.directory, subject, extensions, self.signed, days, key)

    def crl(self, path: Path, days: int = 1) -> Path:
        """Write the list of what is revoked."""
        index, serials = self.directory / "index", self.directory / "crlnumber"
        now = datetime.now(UTC)
        index.write_text(
            "".join(
                f"R\t{now + timedelta(days=30):%y%m%d%H%M%SZ}\t{now - timedelta(hours=1):%y%m%d%H%M%SZ}\t{serial:04X}"
                "\tunknown\t/CN=x\n"
                for serial in self.revoked
            )
        )
        serials.write_text(f"{next(_serials):04X}\n")
        config = self.directory / "ca.conf"
        config.write_text(
            f"[ca]\ndefault_ca = a\n[a]\ndatabase = {index}\ncrlnumber = {serials}\ndefault_md = sha256\n"
            "crl_extensions = e\n[e]\nauthorityKeyIdentifier = keyid\n"
        )
        _openssl(
            "ca", "-config", config, "-gencrl", "-keyfile", self.signed.key, "-cert", self.signed.certificate,
            "-crldays", days, "-out", path,
        )  # fmt: skip
        return path


_KEYS = {
    "ec": ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "weak": ("RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "ed25519": ("ED25519",),
}


def made(
    directory: Path, subject: str, extensions: str, issuer: Signed | None, days: int = 30, kind: str = "ec"
) -> Signed:
    """Make a key, and a certificate for it; without an issuer it signs itself."""
    serial = next(_serials)
    key, request, certificate = (directory / f"{serial}.{end}" for end in ("key", "csr", "pem"))
    _openssl("genpkey", "-algorithm", *_KEYS[kind], "-out", key)
    _openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
    file = directory / f"{serial}.ext"
    file.write_text(extensions + ("authorityKeyIdentifier = keyid\n" if issuer else ""))
    by = ("-CA", issuer.certificate, "-CAkey", issuer.key) if issuer else ("-signkey", key)
    _openssl(
        "x509", "-req", "-in", request, *by, "-set_serial", serial, "-days", days, "-extfile", file,
        "-out", certificate,
    )  # fmt: skip
    return Signed(certificate, key, serial)


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
