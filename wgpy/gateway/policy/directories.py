"""Directories: where people come from that are not kept here, and which of our groups theirs are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from wgpy.gateway.policy.names import checked
from wgpy.gateway.policy.people import LOCAL
from wgpy.gateway.policy.problems import Problems

KINDS: Final = ("oidc", "ldap")
GRACE: Final = 3600  # seconds
LONGEST_GRACE: Final = 30 * 24 * 3600  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMapping:
    """Which of our groups a directory's groups are. What it does not name is none of them."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Our group by the directory's. A group that is here is not looked for by its prefix."""
    prefix: str | None = None
    """A group called this prefix and then as one of ours is that one. "" is for the same name, None for no group."""

    def ours(self, theirs: Iterable[str], known: Collection[str]) -> frozenset[str]:
        """Those of the `known` groups that a person is in who is in these groups of the directory."""
        found = {self.names.get(name) or self._without_prefix(name) for name in theirs}
        return frozenset(found & {*known})

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {"names": dict(self.names), "prefix": self.prefix}

    def _without_prefix(self, name: str) -> str:
        return name.removeprefix(self.prefix) if self.prefix is not None and name.startswith(self.prefix) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A provider of OpenID Connect, or a server of LDAP. Raises Unusable for values that cannot be used."""

    name: str
    """What users of it have as their `source`; part of the path of its pages."""
    kind: str
    settings: Mapping[str, Any]
    """Those of its kind, as JSON: `oidc.Settings` or `ldap.Settings`. No secret is among them."""
    groups: GroupMapping = GroupMapping()
    grace: int = GRACE
    """Seconds for which sessions go on while the directory cannot be asked whether their people are still there."""

    def __post_init__(self) -> None:
        problems = Problems()
        with problems.of("name"):
            checked("directory", self.name)
        if self.name == LOCAL:
            why = f"directory {LOCAL}: users without a directory are called so; choose another name"
            problems.add("name", why)
        if self.kind not in KINDS:
            problems.add("kind", f"directory {self.name}: kind {self.kind!a}: expected one of {', '.join(KINDS)}")
        if not 0 <= self.grace <= LONGEST_GRACE:
            why = f"grace {self.grace}: expected a number of seconds up to {LONGEST_GRACE}, which is 30 days"
            problems.add("grace", why)
        problems.check()

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "settings": dict(self.settings),
            "groups": self.groups.json(),
            "grace": self.grace,
        }
