"""Ask a directory who somebody is: at each sign-in, and again and again for those who are signed in.

All calls block, so they are made from threads. The servers of a directory are tried in turn.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from sansldap import FilterAnd, FilterEquality, FilterExtensibleMatch, FilterOr, FilterPresent, LDAPFilter, SearchScope

from wgpy.errors import ConfigError
from wgpy.gateway.identity.directory import Unavailable
from wgpy.gateway.identity.ldap import entries
from wgpy.gateway.identity.ldap.connection import LONGEST_DN, PAGE, Connection, TooMany
from wgpy.gateway.identity.ldap.entries import Entry
from wgpy.gateway.policy import names
from wgpy.gateway.policy.ldap import Membership, Server, Settings
from wgpy.gateway.policy.people import LONGEST_SUBJECT, Person

T = TypeVar("T")

log: Final = logging.getLogger("wgpy.gateway")

MOST_GROUPS: Final = 1000  # of one person
DEEPEST: Final = 16  # groups in groups in groups; what is deeper is left out
_BATCH: Final = 50  # entries that one filter asks for
_IN_CHAIN: Final = "1.2.840.113556.1.4.1941"  # LDAP_MATCHING_RULE_IN_CHAIN, [MS-ADTS] section 3.1.1.3.4.4.3


class Denied(NamedTuple):
    """The directory does not let somebody in. The reason is for the log: who signs in is told nothing of it."""

    reason: str


class People:
    """The people of a directory called `name`. Methods raise Unavailable if none of its servers can be asked."""

    def __init__(self, name: str, settings: Settings, password: str) -> None:
        self.name: str = name
        self._settings, self._password = settings, password
        self._users = LDAPFilter.from_string(settings.user_filter)
        self._groups = LDAPFilter.from_string(settings.group_filter)

    def sign_in(self, name: str, password: str, wall: float) -> Person | Denied:
        """Whether this is the password of the person of this name now, which is `wall` in seconds since 1970.

        The person is searched for, and the directory judges the password: RFC 4513, section 5.1.3. Somebody who does
        not exist costs as many questions as a wrong password.
        """
        try:
            names.checked("user", name)
        except ConfigError:
            return Denied("not a name")
        if not password or not _is_unicode(password):
            return Denied("no password")
        return self._ask(lambda connection: self._sign_in(connection, name, password, wall))

    def check(self, subjects: Iterable[str], wall: float) -> dict[str, Person | Denied]:
        """What the directory says now about people who have signed in before."""
        parents: dict[str, list[Entry]] = {}
        answers: dict[str, Person | Denied] = {}
        for some in _batches(list(subjects)):
            answers |= self._ask(partial(self._check, subjects=some, wall=wall, parents=parents))
        return answers

    def probe(self) -> dict[str, Any]:
        """See whether the directory can be asked, and people in it be named. Returns what was seen."""
        return self._ask(self._probe)

    def _ask(self, question: Callable[[Connection], T]) -> T:
        """Ask the first server that answers. Each gets its share of the time."""
        end = time.monotonic() + self._settings.timeout
        problems = []
        for left, url in zip(range(len(self._settings.servers), 0, -1), self._settings.servers, strict=True):
            now = time.monotonic()
            try:
                with Connection.open(Server.parse(url), self._settings, now + (end - now) / left) as connection:
                    self._bind(connection)
                    return question(connection)
            except Unavailable as error:
                problems.append(str(error))
        raise Unavailable(f"directory {self.name}: {'; '.join(problems)}")

    def _bind(self, connection: Connection) -> None:
        """Become who searches."""
        if not self._settings.bind_dn:
            return
        if refusal := connection.bind(self._settings.bind_dn, self._password):
            raise Unavailable(f"{self._settings.bind_dn} may not bind: {refusal}")

    def _sign_in(self, connection: Connection, name: str, password: str, wall: float) -> Person | Denied:
        wanted = FilterEquality(self._settings.login, name.encode())
        found = self._search(connection, wanted, self._attributes(), most=2)
        if len(found) != 1:
            # Like this the answer takes as long as that to a wrong password.
            connection.bind(f"{self._settings.login}={secrets.token_hex(8)},{self._settings.base}", password)
            return Denied("no such person" if not found else "several entries have this name")
        if refusal := connection.bind(found[0].dn, password):
            return Denied(refusal)
        if refusal := entries.refusal(found[0], wall):
            return Denied(refusal)
        self._bind(connection)
        return self._person(connection, found[0], {})

    def _check(
        self, connection: Connection, subjects: Sequence[str], wall: float, parents: dict[str, list[Entry]]
    ) -> dict[str, Person | Denied]:
        answers: dict[str, Person | Denied] = dict.fromkeys(subjects, Denied("the directory does not have them"))
        attribute = self._settings.subject
        values = [entries.subject_value(subject, attribute) for subject in subjects]
        wanted = FilterOr([FilterEquality(attribute, value) for value in values if value])
        for entry in self._search(connection, wanted, self._attributes(), most=len(subjects)):
            refusal = entries.refusal(entry, wall)
            subject = entries.subject(entry, attribute)
            if subject in answers:
                answers[subject] = Denied(refusal) if refusal else self._person(connection, entry, parents)
        return answers

    def _probe(self, connection: Connection) -> dict[str, Any]:
        login, subject, base = self._settings.login, self._settings.subject, self._settings.base
        some = self._search(connection, FilterPresent(login), self._attributes(), most=PAGE, some=True)
        nameless = [entry for entry in some if not entries.subject(entry, subject)]
        if not some or nameless:
            what = f"{nameless[0].dn} has no {subject}" if nameless else f"nobody with {login} is below {base}"
            raise Unavailable(f"{what} that {self._settings.bind_dn or 'nobody in particular'} may read")
        return {"server": connection.name, "people": len(some) if len(some) < PAGE else f"{PAGE} or more"}

    def _search(
        self, connection: Connection, wanted: LDAPFilter, attributes: Sequence[str], *, most: int, some: bool = False
    ) -> list[Entry]:
        both = FilterAnd([self._users, wanted])
        return connection.search(self._settings.base, both, attributes, most=most, some=some)

    def _attributes(self) -> tuple[str, ...]:
        return self._settings.login, self._settings.subject, "uid", "memberOf", *entries.STATE

    def _person(self, connection: Connection, entry: Entry, parents: dict[str, list[Entry]]) -> Person | Denied:
        name, subject = names.plain(entry.text(self._settings.login)), entries.subject(entry, self._settings.subject)
        if not name or not subject:
            missing = self._settings.login if not name else self._settings.subject
            return Denied(f"{entry.dn} has no {missing} that the gateway may read")
        if len(subject) > LONGEST_SUBJECT:
            return Denied(f"{entry.dn} has a {self._settings.subject} of more than {LONGEST_SUBJECT} characters")
        try:
            groups = self._find_groups(connection, entry, parents)
        except TooMany as error:  # of this person, and no reason to let nobody else in
            return Denied(str(error))
        return Person(
            name=name,
            source=self.name,
            subject=subject,
            groups=entries.names(groups.values(), self._settings.group_name),
            display_name=entry.text("displayName")[: names.LONGEST],
            email=entry.text("mail")[: names.LONGEST],
        )

    def _find_groups(self, connection: Connection, entry: Entry, parents: dict[str, list[Entry]]) -> dict[str, Entry]:
        """The groups of a person by DN, and those that they are in. `parents` remembers what groups are in.

        A group that is in itself, by whatever way, is asked for once.
        """
        found: dict[str, Entry] = {}
        level = [entry]
        for depth in range(DEEPEST):
            above: dict[str, Entry] = {}
            for each in level:
                key = entries.normal(each.dn)
                if key not in parents:
                    parents[key] = self._groups_of(connection, each, is_person=depth == 0)
                above |= {entries.normal(group.dn): group for group in parents[key]}
            level = [group for dn, group in above.items() if dn not in found]
            found |= above
            if len(found) > MOST_GROUPS:
                raise TooMany(f"{entry.dn} is in more than {MOST_GROUPS} groups")
            if not level or self._settings.membership is Membership.CHAIN:
                return found
        log.warning("directory %s: groups in groups are deeper than %d for %s", self.name, DEEPEST, entry.dn)
        return found

    def _groups_of(self, connection: Connection, entry: Entry, *, is_person: bool) -> list[Entry]:
        """The groups that an entry is in, or with Active Directory's rule those that these are in, too."""
        if self._settings.membership is Membership.MEMBEROF:
            return self._read_groups(connection, entry.all("memberOf"))
        dn = entry.dn.encode()
        if self._settings.membership is Membership.CHAIN:
            found = self._search_groups(connection, [_chain(dn)])
            if sid := entries.primary_group(entry):
                primary = self._search_groups(connection, [FilterEquality("objectSid", sid)])
                chains = [_chain(group.dn.encode()) for group in primary]
                found += primary + (self._search_groups(connection, chains) if chains else [])
            return found
        ways: list[LDAPFilter] = [FilterEquality("member", dn), FilterEquality("uniqueMember", dn)]
        if is_person:
            ways.append(FilterEquality("memberUid", entry.first("uid")))  # posixGroup, RFC 2307
        return self._search_groups(connection, ways)

    def _search_groups(self, connection: Connection, ways: list[LDAPFilter]) -> list[Entry]:
        base = self._settings.group_base or self._settings.base
        wanted = FilterAnd([self._groups, FilterOr(ways)])
        return connection.search(base, wanted, (self._settings.group_name, "memberOf"), most=MOST_GROUPS)

    def _read_groups(self, connection: Connection, dns: Sequence[bytes]) -> list[Entry]:
        """The groups with these DNs, if they are below the base of groups."""
        base = entries.normal(self._settings.group_base or self._settings.base)
        attributes = (self._settings.group_name, "memberOf")
        if len(dns) > MOST_GROUPS:
            raise TooMany(f"an entry is in more than {MOST_GROUPS} groups")
        return [
            group
            for dn in (value.decode(errors="replace") for value in dns)
            if len(dn) <= LONGEST_DN and entries.normal(dn).endswith(f",{base}")
            for group in connection.search(dn, self._groups, attributes, most=1, scope=SearchScope.BASE)
        ]


def _is_unicode(text: str) -> bool:
    """Whether a text is no half of a UTF-16 pair or the like, which a form may bring."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _chain(dn: bytes) -> LDAPFilter:
    return FilterExtensibleMatch(_IN_CHAIN, "member", dn, False)


def _batches(subjects: Sequence[str]) -> Iterable[Sequence[str]]:
    return (subjects[start : start + _BATCH] for start in range(0, len(subjects), _BATCH))
