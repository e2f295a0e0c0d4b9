"""What people write is read, and written as it is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.errors import ConfigError
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.policy.sessions import Traffic
from wgpy.gateway.policy.texts import date, difference, duration, expiry, moment, printable_lines, span
from wgpy.gateway.policy.traffic import SPAN, History, Rate


@given(st.integers(0, 10**8))
def test_a_span_is_read_as_it_is_written(seconds: int) -> None:
    assert duration(span(seconds)) == seconds


def test_spans_have_the_largest_unit_that_divides_them() -> None:
    assert [span(seconds) for seconds in (0, 59, 60, 5400, 28800, 86400 * 2)] == ["0d", "59s", "1m", "90m", "8h", "2d"]


@given(st.integers(0, 10**10))
def test_a_moment_is_read_as_it_is_written(seconds: int) -> None:
    assert date(moment(seconds)) == seconds


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 86399]))
def test_an_expiry_is_read_as_it_is_written(day: int, second: int) -> None:
    assert date(expiry(86400 * day + second)) == 86400 * day + second


def test_what_is_good_until_the_end_of_a_day_is_shown_with_that_day() -> None:
    assert [expiry(date(text)) for text in ("2030-12-31", "2028-02-29", "2031-01-01T00:00")] == [
        "2030-12-31", "2028-02-29", "2030-12-31",
    ]  # fmt: skip
    assert expiry(date("2030-12-31T18:00")) == "2030-12-31 18:00:00"
    assert expiry(None) == "-"


def test_a_moment_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one such as 2026-12-31"):
        date("31.12.2026")


def test_a_difference_names_what_changed() -> None:
    assert difference(None, {"a": 1}) == "added"
    assert difference({"a": 1}, None) == "removed"
    assert difference({"expires": None}, {"expires": date("2030-12-31")}) == "expires: - -> 2030-12-31"
    assert difference({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == "b: 2 -> 3, c: - -> 4"
    before, after = {"settings": {"a": 1, "b": 2, "c": 3}}, {"settings": {"a": 1, "b": "x\ny" * 999}}
    assert difference(before, after) == f"settings.b: 2 -> {('x y' * 999)[:200]}..., settings.c: 3 -> -"


def test_a_revision_differs_with_every_value_and_not_with_their_order() -> None:
    assert revision({"a": 1, "b": [2]}) == revision({"b": [2], "a": 1})
    assert len({revision(values) for values in ({}, {"a": 1}, {"a": "1"}, {"a": None}, {"b": 1})}) == 5


def test_rates_follow_from_the_samples_of_the_last_minutes() -> None:
    history = History()
    for now, number in ((0.0, 0), (10.0, 1000), (12.0, 1500), (30.0, 5000)):
        history.add(now, Traffic(ingress_bytes=number, egress_bytes=2 * number))
    assert history.rates(30.0) == [Rate(20.0, 100.0, 200.0), Rate(0.0, 200.0, 400.0)]  # what came too soon waits
    assert history.rates(10.0 + SPAN) == [Rate(SPAN - 20.0, 200.0, 400.0)]
    history.add(40.0, Traffic())  # counters that began anew
    assert history.rates(40.0)[-1] == Rate(0.0, 0.0, 0.0)


def test_what_is_remembered_is_bounded() -> None:
    history = History()
    for n in range(100_000):
        history.add(n * 5.0, Traffic(n))
    assert len(history.rates(500_000.0)) <= SPAN / 5


def test_lines_are_texts_without_control_characters_and_the_refusal_does_not_repeat_them() -> None:
    assert printable_lines("banner", "a\r\n\tb\n") == "a\r\n\tb\n"
    for odd in ("\0", "\ud800", "\x1b", "\r", "\x0c"):
        with pytest.raises(ConfigError, match=r"^banner, line 2: has control characters") as refused:
            printable_lines("banner", f"a\nsecret{odd}")
        assert "secret" not in str(refused.value)
