"""Enrolment by a client certificate over HTTPS, by the command and by what a stranger may send."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.gateway.identity.authority import CLIENT, Authority
from tests.gateway.web.conftest import URL, Running, serving
from tests.support.tools import needs
from wgpy.cli import main
from wgpy.config.wgquick import parse
from wgpy.gateway.policy import certificates as policy
from wgpy.gateway.policy.certificates import ENROL_PATH
from wgpy.gateway.store import certificates, devices, endpoint
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.app import application
from wgpy.gateway.web.certificate import own_certificate
from wgpy.gateway.web.site import Site

GOOD: dict[str, Any] = {
    "certificate": "-----BEGIN CERTIFICATE-----", "name": "laptop", "public_key": "A" * 43 + "=", "at": 1000,
    "signature": "AAAA",
}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"[]", b"null", b"\xff", b"[" * 60_000, b'{"certificate": 1}',
        *(json.dumps({**GOOD, **odd}).encode() for odd in (
            {"certificate": None}, {"name": 5}, {"name": "../x"}, {"name": "a\nb"}, {"public_key": 7},
            {"public_key": "short"}, {"at": "1000"}, {"at": True}, {"at": 1.5}, {"at": -1},
            {"at": 10**400}, {"signature": 5}, {"signature": "*"},
        )),
    ],
    ids=range(20),
)  # fmt: skip
def test_what_is_no_proof_is_one_sentence(body: bytes, client: TestClient) -> None:
    answer = client.post(ENROL_PATH, content=body, headers={"Origin": URL})
    assert answer.status_code == 400
    assert "expected" in answer.json()["detail"]


def test_too_much_and_another_sites_request_are_refused(client: TestClient) -> None:
    assert client.post(ENROL_PATH, content=bytes(100_000), headers={"Origin": URL}).status_code == 413
    assert client.post(ENROL_PATH, json=GOOD, headers={"Origin": "https://evil.org"}).status_code == 403
    assert client.post(ENROL_PATH, json=GOOD, headers={"Origin": URL}).status_code == 403  # no authority is set


def test_strangers_have_few_attempts(client: TestClient) -> None:
    codes = [client.post(ENROL_PATH, json=GOOD, headers={"Origin": URL}).status_code for _ in range(32)]
    assert codes == [403] * 30 + [429] * 2


@dataclass(frozen=True)
class Gateway:
    """A gateway that serves at `url`, and accepts certificates of an authority."""

    url: str
    trusted: Path
    root: Authority
    database: Database


@pytest.fixture
def gateway(database: Database, tmp_path: Path) -> Iterator[Gateway]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"https://localhost:{port}"
    root = Authority.root(tmp_path / "ca")
    database.clock = lambda: datetime.now(UTC).timestamp() + 1  # openssl dates what it signs by the second
    with database.change("root") as change:
        settings = replace(endpoint.find(change.connection), url=url)
        endpoint.replace(change, settings)
        certificates.set_authority(change, policy.Authority(ca=root.pem(), crl=str(root.crl(tmp_path / "crl"))))
    own = own_certificate(tmp_path / "https.pem", url, datetime.now(UTC))
    trusted = tmp_path / "trusted.pem"
    trusted.write_text((tmp_path / "https.pem").read_text().partition("-----BEGIN PRIVATE KEY")[0])
    site = Site(database=database, service=Running(settings), wall=database.clock)
    with serving(application(site), lambda server: server.listen_tcp(f"127.0.0.1:{port}", own, None)):
        yield Gateway(url, trusted, root, database)


@pytest.mark.parametrize("key", ["ec", "rsa", "ed25519"])
def test_the_command_enrols_a_device_and_signs_it_in_again(
    key: str, gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed, file, database = gateway.root.sign("/CN=alice", CLIENT, key=key), tmp_path / "wg0.conf", gateway.database

    def enrol(*more: str, url: str = gateway.url) -> int:
        arguments = ["--certificate", str(signed.certificate), "--certificate-key", str(signed.key), *more]
        return main(["gateway", "enrol", url, "--name", "laptop", "--output", str(file), *arguments])

    assert enrol() == 1  # the system does not know the gateway's certificate
    printed = capsys.readouterr().err
    assert "certificate verify failed" in printed
    assert "add --ca https.pem" in printed
    assert enrol("--ca", str(gateway.trusted), url="https://localhost:1") == 1
    assert "Connection refused" in capsys.readouterr().err
    assert not file.exists()
    assert enrol("--ca", str(gateway.trusted)) == 0
    with database.read() as connection:
        device = devices.find(connection, "laptop")
        (bound,) = certificates.find_all(connection)
    config = parse(file.read_text()).config
    assert config.private_key
    assert config.private_key.public_key == device.public_key
    assert [interface.ip for interface in config.addresses] == list(device.addresses)
    assert len(config.peers) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    with database.change("root") as change:
        devices.sign_out(change, "alice")
        certificates.bind(change, replace(bound, proved_at=bound.proved_at - 5))
    assert enrol("--ca", str(gateway.trusted)) == 0
    assert file.read_text() == text
    with database.read() as connection:
        assert devices.find(connection, "laptop").signed_in_at
    gateway.root.revoked.append(signed.serial)
    gateway.root.crl(tmp_path / "crl")
    capsys.readouterr()
    assert enrol("--ca", str(gateway.trusted)) == 1
    assert "the certificate 'CN=alice' is revoked" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["ec", "rsa"])
@needs("jq", "curl")
def test_the_pages_commands_of_openssl_and_curl_do_the_same(key: str, gateway: Gateway, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "gateway-sign-in.md").read_text()
    (commands,) = re.findall(r"```sh\n([^`]*openssl dgst[^`]*)```", page)
    signed = gateway.root.sign("/CN=alice", CLIENT, key=key)
    for path, name in ((signed.certificate, "alice.pem"), (signed.key, "alice.key")):
        (tmp_path / name).write_bytes(path.read_bytes())
    script = commands.replace("https://vpn.example.org", gateway.url)
    environment = {**os.environ, "CURL_CA_BUNDLE": str(gateway.trusted)}
    done = subprocess.run(
        ["sh", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    config = parse(done.stdout).config
    with gateway.database.read() as connection:
        device = devices.find(connection, "alice-laptop")
    assert [interface.ip for interface in config.addresses] == list(device.addresses)
    assert device.certificate == ""
