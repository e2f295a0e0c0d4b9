"""A web server in a tunnel, with and without TLS, whose name exists only there."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.namespace.conftest import Server
from tests.namespace.conftest import network as network
from tests.namespace.conftest import server as server
from tests.support.netns import Namespace
from wgpy.config import wgquick
from wgpy.config.values import InterfaceConfig

NAME = "web.corp.test"
PAGE = "from the other side\n"


@dataclass
class Web:
    """The server's URLs, its certificate, and the configuration and namespace from which to reach it."""

    client: Namespace
    config: InterfaceConfig
    authority: str
    http: str = f"http://{NAME}:8000/page"
    https: str = f"https://{NAME}:8443/page"


@pytest.fixture
def web(cable: Cable, server: Server) -> Web:
    site = cable.directory / "site"
    site.mkdir()
    (site / "page").write_text(PAGE)
    authority = _certificate(cable.directory)
    names = (f"{NAME}={server.address}", f"{NAME}={server.side.inner6}")
    server.run_beside(sys.executable, "-m", "wgpy.labs.nameserver", server.address, *names)
    server.run_beside(
        sys.executable, "-m", "tests.adapters.serve", server.address, str(site), str(cable.directory / "pem")
    )
    text = server.text.replace("Address", f"DNS = {server.address}, corp.test\nAddress")
    return Web(server.client, wgquick.parse(text).config, authority)


def _certificate(directory: Path) -> str:
    """Write a key and a self-signed certificate to `pem`, and return the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(directory / "pem", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(private + text)
    return text.decode()
