"""What people write and read: durations, dates, networks, and what a change was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.policy.destinations import Address, Network

_DAY: Final = 86400  # seconds; in the time since 1970, which leap seconds are not in, all days have as many
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": _DAY, "": 1}
_LONGEST: Final = 200  # characters of a value in the description of a change
_DURATION: Final = re.compile(r"(\d{1,9})([smhd]?)")


def printable(what: str, text: str) -> str:
    """Return a text that can be stored and shown. Raises ConfigError for one with control characters or surrogates."""
    if not text.isprintable():
        raise ConfigError(f"{what} {text!a}: has control characters, or bytes that are not UTF-8; leave them out")
    return text


def printable_lines(what: str, text: str) -> str:
    """Return a text of several lines, perhaps with tabs, as `printable` does. Raises ConfigError.

    The message does not repeat the line: it may be one with a private key.
    """
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\t", " ").split("\n"), 1):
        if not line.isprintable():
            raise ConfigError(
                f"{what}, line {number}: has control characters, or bytes that are not UTF-8; leave them out"
            )
    return text


def moment(seconds: float | None) -> str:
    """A time since 1970 for people, in UTC."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def expiry(seconds: float | None) -> str:
    """The end of something as `date` reads it: the last day of it, if it is good until the end of a day, in UTC."""
    if seconds is None or seconds % _DAY:
        return moment(seconds)
    return datetime.fromtimestamp(seconds - _DAY, UTC).strftime("%Y-%m-%d")


def duration(text: str) -> int:
    """Read 8h, 30m, 90s or 2d as seconds. Raises ConfigError."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ConfigError(f"duration {text!a}: expected a number with s, m, h or d, such as 8h")
    return int(found[1]) * _UNITS[found[2]]


def span(seconds: int) -> str:
    """Write seconds as `duration` reads them, in the largest unit that divides them."""
    unit = next(unit for unit in "dhms" if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def date(text: str) -> float:
    """Read a day, whose end is meant, or a day with a time, in UTC unless it says otherwise. Raises ConfigError."""
    try:
        found = datetime.fromisoformat(text)
        if len(text) <= len("2026-12-31"):
            found += timedelta(days=1)
    except (ValueError, OverflowError):
        raise ConfigError(f"date {text!a}: expected one such as 2026-12-31 or 2026-12-31T18:00") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def pairs(what: str, texts: Iterable[str]) -> dict[str, str]:
    """Read NAME=VALUE, where the name may have a = as well. Raises ConfigError."""
    found = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{what} {text!a}: expected two names with = between them")
        found[name] = value
    return found


def network(what: str, text: str) -> Network:
    """Read a network. Raises ConfigError."""
    try:
        return ip_network(_without_zone(text))
    except ValueError as error:
        raise ConfigError(f"{what} {text!a}: {error}; expected a network such as 10.0.0.0/16") from None


def address(what: str, text: str) -> Address:
    """Read an address. Raises ConfigError."""
    try:
        return ip_address(_without_zone(text))
    except ValueError:
        raise ConfigError(f"{what} {text!a}: expected an address such as 10.0.0.53") from None


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """What an entry of the audit log is about. Of long values, such as certificates, the beginning is shown."""
    if not before or not after:
        return "added" if after else "removed"
    return ", ".join(_differences("", before, after))


def _differences(within: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in after:
        old, new = before.get(key, "-"), after[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(f"{within}{key}.", old, {**dict.fromkeys(old, "-"), **new})
        elif old != new:
            yield f"{within}{key}: {_shown(key, old)} -> {_shown(key, new)}"


def _shown(key: str, value: object) -> str:
    if key == "expires" and isinstance(value, float | None):
        return expiry(value)
    text = " ".join(str(value).split("\n"))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _without_zone(text: str) -> str:
    """Return an address without a zone (RFC 4007), which may be any text. Raises ValueError for others."""
    if "%" in text:
        raise ValueError("an address with a zone such as %eth0 is not usable here")
    return text
