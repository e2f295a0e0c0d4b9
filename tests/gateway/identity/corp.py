"""The people and groups of a company, in a real OpenLDAP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path

import pytest

from tests.gateway.identity import slapd
from tests.gateway.identity.slapd import BASE, Slapd, group, person

PEOPLE = "ou=people"
DISABLED = {
    "expired": "shadowExpire: 1",
    "off": "nsAccountLock: TRUE",
    "dis": "userAccountControl: 514",
    "old": "accountExpires: 116444736000000000",  # 1970
}
NESTED = [
    ("staff", f"uid=alice,{PEOPLE}", f"uid=bob,{PEOPLE}", *(f"uid={name},{PEOPLE}" for name in DISABLED)),
    ("engineers", f"uid=alice,{PEOPLE}"),
    ("technical", "cn=engineers,ou=groups", "cn=everyone,ou=groups"),  # and the next one are in one another
    ("everyone", "cn=technical,ou=groups", "cn=staff,ou=groups"),
]
OF_WINDOWS = "objectClass: extensibleObject\ninstanceType: 4\nnTSecurityDescriptor: x\n"
MANY = 700  # groups, more than one page


@contextmanager
def corp(directory: Path) -> Iterator[Slapd]:
    """OpenLDAP with people and groups, in a new directory. Skips the test where it is not installed."""
    if not slapd.SLAPD:
        pytest.skip("needs slapd")
    disabled = [person(name, f"{name}'s own", f"{line}\n") for name, line in DISABLED.items()]
    everybody = [person(name, f"{name}'s own") for name in ("alice", "bob", "carol", "dave", "erin", "frank", "grace")]
    odd = (
        f"dn: cn=Dd\\, \\22O\\22 \\3Cx\\3E (y) \\2A,ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: odd\nsn: Odd\n"
        "userPassword: odd's own\n\n"
    )
    twins = [
        f"dn: cn={name},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: twin\nsn: Twin\nuserPassword: twin's own\n\n"
        for name in ("one", "two")
    ]
    windows = (
        f"dn: cn=Win User,ou=people,{BASE}\nobjectClass: user\n{OF_WINDOWS}cn: Win User\nsn: User\n"
        "sAMAccountName: winuser\nobjectCategory: cn=person\nuserAccountControl: 512\nprimaryGroupID: 513\n"
        "accountExpires: 9223372036854775807\nobjectGUID:: AQIDBAUGBwgJCgsMDQ4PEA==\n"
        "objectSid:: AQUAAAAAAAUVAAAAAQAAAAIAAAADAAAAUAQAAA==\nuserPassword: winuser's own\n\n"
        f"dn: cn=Domain Users,ou=groups,{BASE}\nobjectClass: group\n{OF_WINDOWS}cn: Domain Users\n"
        "sAMAccountName: Domain Users\nobjectCategory: cn=group\ngroupType: -2147483646\n"
        "objectSid:: AQUAAAAAAAUVAAAAAQAAAAIAAAADAAAAAQIAAA==\n\n"
    )
    groups = [
        *starmap(group, NESTED),
        group("nobody", "uid=none,ou=people"),
        f"dn: cn=odd,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: odd\n"
        f"member: cn=Dd\\, \\22O\\22 \\3Cx\\3E (y) \\2A,ou=people,{BASE}\n\n",
        f"dn: cn=posix,ou=groups,{BASE}\nobjectClass: posixGroup\ncn: posix\ngidNumber: 100\nmemberUid: carol\n\n",
        f"dn: cn=unique,ou=groups,{BASE}\nobjectClass: groupOfUniqueNames\ncn: unique\n"
        f"uniqueMember: uid=carol,ou=people,{BASE}\n\n",
        # A group that is called like another one's DN, by somebody who wants that one's rights.
        f"dn: cn=forged,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: forged\ncn: cn=engineers,ou=groups,{BASE}\n"
        f"member: uid=bob,ou=people,{BASE}\n\n",
        *(group(f"many{number}", f"uid=dave,{PEOPLE}") for number in range(MANY)),
        *(
            group(f"deep{number}", f"cn=deep{number - 1},ou=groups" if number else f"uid=erin,{PEOPLE}")
            for number in range(20)
        ),
    ]
    with slapd.running(directory, "".join([*everybody, *disabled, odd, windows, *twins, *groups])) as running:
        for name, *members in NESTED:  # its overlay writes `memberOf` where it sees a change
            lines = "".join(f"member: {member},{BASE}\n" for member in members)
            dn = f"cn={name},ou=groups,{BASE}"
            running.modify(f"dn: {dn}\nchangetype: modify\nreplace: member\n{lines}")
        yield running
