"""Codes of authenticator apps, by the RFC's own vectors."""

from __future__ import annotations

import pytest

from wgpy.gateway.identity import totp

SEED = b"12345678901234567890"  # RFC 6238, appendix B: the last six of its eight digits
VECTORS = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
]


@pytest.mark.parametrize(("wall", "code"), VECTORS)
def test_the_codes_of_the_rfc_are_accepted_one_period_early_or_late_and_no_more(wall: float, code: str) -> None:
    step = int(wall) // 30
    assert [totp.step_of(SEED, code, wall + late) for late in (-60, -30, 0, 30, 60)] == [None, step, step, step, None]


@pytest.mark.parametrize(
    "code", ["", "28708", "2870820", "287083", "²87082", "2870８2", "\udcff", "0" * 10_000, "-87082"]
)
def test_what_is_no_code_of_now_is_refused(code: str) -> None:
    assert totp.step_of(SEED, code, 59) is None


def test_a_code_may_be_typed_with_a_space() -> None:
    assert totp.step_of(SEED, "287 082", 59) == 1


def test_an_app_gets_the_seed_by_a_uri_or_by_hand() -> None:
    uri = totp.uri(SEED, "alice@example.org", "vpn.example.org")
    assert uri == (
        "otpauth://totp/vpn.example.org:alice%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
        "&issuer=vpn.example.org"
    )
    assert totp.text(SEED) in uri
    assert len(totp.new_seed()) == 20


def test_recovery_codes_are_long_and_may_be_typed_carelessly() -> None:
    codes = totp.new_recovery_codes()
    assert len(set(codes)) == 10
    for code in codes:
        assert len(code.replace("-", "")) == 16, "80 bits"
        assert totp.recovery_code(code.upper().replace("-", " ")) == code
        assert totp.recovery_code(code.replace("-", "")) == code
    assert totp.recovery_code("\udcff!") == ""
