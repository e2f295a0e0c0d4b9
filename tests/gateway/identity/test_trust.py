"""Which certificates a client of TLS believes."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.support.certificates import server_certificate
from wgpy.errors import ConfigError
from wgpy.gateway.identity import trust


def names(context: ssl.SSLContext) -> list[str]:
    return sorted(each["subject"][0][0][1] for each in context.get_ca_certs())


def test_all_given_certificates_are_believed_and_no_others(tmp_path: Path) -> None:
    first, second = (server_certificate(tmp_path, host)[0].read_text() for host in ("a.example", "b.example"))
    context = trust.context(f"# Büro\n{first}# Άλλο\n{second}")
    assert names(context) == ["a.example", "b.example"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("text", ["", "\n", "é", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_text_without_certificates_does_not_mean_the_systems(text: str) -> None:
    with pytest.raises(ConfigError, match="expected certificates in PEM"):
        trust.context(text)
