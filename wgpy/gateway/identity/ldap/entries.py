"""What the entries of directories say: who somebody is, and whether they may still come in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from wgpy.gateway.policy.names import LONGEST

_DISABLED: Final = 0x2  # ACCOUNTDISABLE of userAccountControl, [MS-ADTS] section 2.2.16
_NEVER: Final = (0, 0x7FFFFFFFFFFFFFFF)  # accountExpires, [MS-ADA1] section 2.3
_1601: Final = 11_644_473_600  # seconds from 1601 to 1970: the FILETIME of accountExpires counts from there
_DAY: Final = 86_400
_SPACES: Final = re.compile(r"(?<!\\), +")
_LOCKED_FOR_EVER: Final = b"000001010000Z"  # pwdAccountLockedTime, draft-behera-ldap-password-policy section 5.3.3

# What is asked for of a person beside the settings' own attributes: to know whether they are disabled, and their SID.
STATE: Final = (
    "userAccountControl", "accountExpires", "shadowExpire", "pwdAccountLockedTime", "nsAccountLock", "primaryGroupID",
    "objectSid", "mail", "displayName",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as a search returns it: its DN, and attributes by their names in lower case."""

    dn: str
    attributes: Mapping[str, tuple[bytes, ...]]

    def all(self, name: str) -> tuple[bytes, ...]:
        """All values of an attribute."""
        return self.attributes.get(name.lower(), ())

    def first(self, name: str) -> bytes:
        """The first value of an attribute; empty if there is none."""
        return next(iter(self.all(name)), b"")

    def text(self, name: str) -> str:
        """The first value of an attribute as text; empty if there is none, or it cannot be shown."""
        try:
            found = self.first(name).decode()
        except UnicodeDecodeError:
            return ""
        return found if found.isprintable() else ""

    def number(self, name: str) -> int | None:
        """The first value of an attribute as a number; None if there is none."""
        try:
            return int(self.first(name))
        except ValueError:
            return None


def subject(entry: Entry, attribute: str) -> str:
    """What names the entry for ever, as text. An objectGUID is written as Microsoft does. Empty if it has none."""
    value = entry.first(attribute)
    return str(UUID(bytes_le=value)) if _is_guid(attribute) and len(value) == 16 else entry.text(attribute)


def subject_value(text: str, attribute: str) -> bytes:
    """The value to search for, given what `subject` has made; empty if it cannot have made this."""
    try:
        return UUID(text).bytes_le if _is_guid(attribute) else text.encode()
    except ValueError:
        return b""


def refusal(entry: Entry, wall: float) -> str:
    """Why the directory does not let the entry's person in; empty if it does. `wall` is in seconds since 1970.

    An account that is locked for a time after wrong passwords is not refused here: the server refuses to bind it, and
    whoever tries passwords should not end another's session.
    """
    if (entry.number("userAccountControl") or 0) & _DISABLED:
        return "the account is disabled"
    if entry.first("nsAccountLock").lower() == b"true":  # of 389 Directory Server and FreeIPA
        return "the account is disabled"
    if entry.first("pwdAccountLockedTime") == _LOCKED_FOR_EVER:
        return "the account is locked by an administrator"
    expires = entry.number("accountExpires")
    if expires is not None and expires not in _NEVER and expires <= (wall + _1601) * 10_000_000:
        return "the account has expired"
    days = entry.number("shadowExpire")
    if days is not None and days >= 0 and days * _DAY <= wall:  # shadow(5); -1 is never
        return "the account has expired"
    return ""


def primary_group(entry: Entry) -> bytes | None:
    """The SID of Active Directory's primary group, which no group's `member` has. None if there is none.

    It is the person's SID with the last of its 32-bit numbers replaced by primaryGroupID: [MS-DTYP] section 2.4.2.2.
    """
    sid, number = entry.first("objectSid"), entry.number("primaryGroupID")
    if len(sid) < 12 or number is None or not 0 <= number < 1 << 32:
        return None
    return sid[:-4] + number.to_bytes(4, "little")


def normal(dn: str) -> str:
    """A DN in a form in which two that differ by case and by spaces after commas only are equal."""
    return _SPACES.sub(",", dn.lower())


def names(groups: Iterable[Entry], attribute: str) -> frozenset[str]:
    """What the groups are called: by their names, and by their DNs, as the directory writes them and as `normal` does.

    A name that is too long for one of our groups is left out. So is one with `=`, so that nobody who may name a group
    gives it another's DN for a name.
    """
    called: set[str] = set()
    for group in groups:
        name = group.text(attribute)
        called |= {group.dn, normal(group.dn), *([name] if 0 < len(name) <= LONGEST and "=" not in name else [])}
    return frozenset(called)


def _is_guid(attribute: str) -> bool:
    return attribute.lower() == "objectguid"
