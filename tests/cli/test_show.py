"""`wgpy show` prints what `wg show` prints."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.support.nobody import NOBODY
from wgpy.cli import main
from wgpy.cli.show import as_json, as_text
from wgpy.daemon import uapi_client
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import PresharedKey, PrivateKey

NOW = 1_700_000_000
OWN, A, B = (PrivateKey(bytes([n]) * 32) for n in (1, 2, 3))


def status(**peer: object) -> DeviceStatus:
    return DeviceStatus(peers=(PeerStatus(public_key=A.public_key, **peer),))  # type: ignore[arg-type]


def shown(status: DeviceStatus) -> list[str]:
    return [line.strip() for line in as_text("wg0", status, NOW, colour=False).splitlines()]


def test_the_layout_is_that_of_wg() -> None:
    peers = (
        PeerStatus(public_key=B.public_key),
        PeerStatus(
            public_key=A.public_key,
            preshared_key=PresharedKey(b"p" * 32),
            endpoint=Endpoint("2001:db8::1", 51820),
            allowed_ips=(ip_network("10.0.0.2/32"), ip_network("fd00::/64")),
            last_handshake_ns=(NOW - 65) * 10**9,
            rx_bytes=1536,
            tx_bytes=92,
            persistent_keepalive=25,
        ),
    )
    told = DeviceStatus(private_key=OWN, public_key=OWN.public_key, listen_port=51820, fwmark=51820, peers=peers)
    expected = f"""\
interface: wg0
  public key: {OWN.public_key.base64()}
  private key: (hidden)
  listening port: 51820
  fwmark: 0xca6c

peer: {A.public_key.base64()}
  preshared key: (hidden)
  endpoint: [2001:db8::1]:51820
  allowed ips: 10.0.0.2/32, fd00::/64
  latest handshake: 1 minute, 5 seconds ago
  transfer: 1.50 KiB received, 92 B sent
  persistent keepalive: every 25 seconds

peer: {B.public_key.base64()}
  allowed ips: (none)
"""
    assert as_text("wg0", told, NOW, colour=False) == expected


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (0, "Now"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (3601, "1 hour, 1 second ago"),
        (2 * 86400 + 7200, "2 days, 2 hours ago"),
        (366 * 86400 + 60, "1 year, 1 day, 1 minute ago"),
        (-5, "(System clock wound backward; connection problems may ensue.)"),
    ],
)
def test_ages_are_shown_as_by_wg(ago: int, said: str) -> None:
    assert f"latest handshake: {said}" in shown(status(last_handshake_ns=(NOW - ago) * 10**9))


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1 << 20, "1.00 MiB"),
        (3 << 29, "1.50 GiB"),
        (5 << 50, "5120.00 TiB"),
    ],
)
def test_sizes_are_shown_as_by_wg(size: int, said: str) -> None:
    assert f"transfer: {said} received, 0 B sent" in shown(status(rx_bytes=size))


def test_colours_are_wgs_and_can_be_removed() -> None:
    import re

    coloured = as_text("wg0", status(rx_bytes=1), NOW, colour=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == as_text("wg0", status(rx_bytes=1), NOW, colour=False)


def test_json_has_no_secrets() -> None:
    told = DeviceStatus(
        private_key=OWN,
        public_key=OWN.public_key,
        peers=(
            PeerStatus(public_key=A.public_key, preshared_key=PresharedKey(b"p" * 32), last_handshake_ns=1_500_000_000),
        ),
    )
    plain = as_json(told)
    assert plain["public_key"] == OWN.public_key.base64()
    assert plain["peers"][0]["has_preshared_key"] is True
    assert plain["peers"][0]["latest_handshake"] == 1.5
    assert OWN.base64() not in repr(plain)
    assert PresharedKey(b"p" * 32).base64() not in repr(plain)


@pytest.mark.root
@pytest.mark.parametrize("words", [[], ["interfaces"], ["all", "dump"], ["--json"]])
def test_a_user_who_may_not_list_the_interfaces_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """It fails with status 1 like `wg show`; without the directory there are no interfaces."""
    directory = tmp_path / "wireguard"
    monkeypatch.setattr(uapi_client, "DIRECTORY", directory)
    assert main(["show", *words]) == 0
    directory.mkdir(mode=0o700)
    os.seteuid(NOBODY)
    try:
        assert main(["show", *words]) == 1
    finally:
        os.seteuid(0)
    expected = f"wgpy: Unable to list interfaces: {directory}: Permission denied: run as root\n"
    assert capsys.readouterr().err == expected
