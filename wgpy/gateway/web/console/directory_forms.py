"""Forms that add and change a directory, which is asked whether it can be used before anything is saved."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import ceil
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from wgpy.errors import ConfigError, ControlError, WgpyError
from wgpy.gateway.identity import directory as identity
from wgpy.gateway.identity.administration import EXAMPLES, check_kept, directory_settings
from wgpy.gateway.policy import ldap
from wgpy.gateway.policy.directories import GRACE, Directory, GroupMapping
from wgpy.gateway.policy.oidc import callback_path
from wgpy.gateway.policy.problems import Problems
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.policy.texts import duration, span
from wgpy.gateway.store import directories, groups
from wgpy.gateway.web.console import fields
from wgpy.gateway.web.console.fields import Field, Sections
from wgpy.gateway.web.console.visit import Visit, action, page, path_of

_CA: Final = fields.text(
    "ca", "Certificates to trust", "In PEM, of the authority of the server's. Empty for those that the system trusts."
)
_OF_US: Final[Sections] = {
    "Groups": (
        fields.mapping("names", "Groups", "THERE=HERE, one a line: which group here a group there is."),
        fields.switch("all_groups", "A group there with the name of a group here is that group", ""),
        Field(
            "prefix",
            "Prefix",
            "Or: a group there that has this and then the name of a group here is that group.",
        ),
    ),
    "When the directory cannot be asked": (
        fields.time("grace", "Sessions go on for", "Such as 1h. 0 ends them at the first check that fails."),
    ),
}
_OIDC: Final[Sections] = {
    "The provider": (
        Field("issuer", "Issuer", "Its address as it writes it, such as https://id.example.org/realms/corp"),
        Field("client_id", "Client ID", "What the provider calls this gateway."),
        fields.secret("secret", "Client secret", "It is never shown."),
        _CA,
    ),
    "What to ask for": (
        fields.lines("scopes", "Scopes", "One a line. Empty for the usual ones."),
        fields.mapping("parameters", "Further parameters", "NAME=VALUE, one a line: access_type=offline for Google."),
    ),
    "What its claims say": (
        Field("name_claim", "Claim of the name", "What users are called here."),
        Field("groups_claim", "Claim of the groups", ""),
        fields.mapping("require", "Claims that people must have", "CLAIM=VALUE, one a line, such as hd=example.org"),
    ),
}
_HOW: Final = {
    ldap.Membership.MEMBER: "Groups name their members",
    ldap.Membership.MEMBEROF: "People's entries name their groups (memberOf)",
    ldap.Membership.CHAIN: "Active Directory finds groups in groups",
}
_LDAP: Final[Sections] = {
    "The servers": (
        fields.lines("servers", "Servers", "ldaps://HOST, or ldap://HOST for StartTLS, one a line, in this order."),
        fields.switch("plain", "Without TLS", "ldap:// without StartTLS: passwords can be read on the way."),
        _CA,
        Field(
            "timeout", "A sign-in may take", "At most 60s.", read=lambda form, name: duration(form.text(name)),
            write=lambda seconds: span(ceil(seconds)),
        ),
    ),
    "Who searches": (
        Field("bind_dn", "Account", "Its DN: an account of this gateway's own. Empty for none."),
        fields.secret("secret", "Password", "Of this account. It is never shown."),
    ),
    "Where people are": (
        Field("base", "Base", "The DN of the entry below which people are, such as ou=people,dc=example,dc=org"),
        Field("user_filter", "Filter", "Who may sign in."),
        Field("login", "Attribute of the name", "What people type to sign in, and are called here."),
        Field("subject", "Attribute that never changes", "By it the gateway knows people whose name changes."),
    ),
    "Where groups are": (
        Field("group_base", "Base of groups", "Empty for that of people."),
        Field("group_filter", "Filter of groups", ""),
        Field("group_name", "Attribute of a group's name", ""),
        Field(
            "membership", "How members are found", kind="select",
            options=tuple((each.value, text) for each, text in _HOW.items()),
        ),
    ),
}  # fmt: skip
_NAME: Final[Sections] = {
    "Directory": (Field("name", "Name", "What this gateway calls it, for good. Letters, digits and ._@+=-"),)
}
_FORMS: Final[Mapping[str, Sections]] = {"oidc": {**_OIDC, **_OF_US}, "ldap": {**_LDAP, **_OF_US}}


class _New(NamedTuple):
    """What the form for a new directory begins with."""

    title: str
    kind: str
    settings: Mapping[str, Any]


_USUAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "oidc": {**EXAMPLES["oidc"], "issuer": "", "client_id": ""},
    "ldap": {**EXAMPLES["ldap"], "servers": [], "base": ""},
}
_NEW: Final[Mapping[str, _New]] = {
    "oidc": _New("Add a provider of OpenID Connect", "oidc", _USUAL["oidc"]),
    "ldap": _New("Add an LDAP directory", "ldap", _USUAL["ldap"]),
    "active-directory": _New("Add an Active Directory", "ldap", {**_USUAL["ldap"], **ldap.ACTIVE_DIRECTORY}),
}


def _new(visit: Visit, which: str, error: WgpyError | None = None) -> Response:
    new = _NEW[which]
    sections = {**_NAME, **_FORMS[new.kind]}
    start = {"name": "", **new.settings, **_written(GroupMapping()), "grace": GRACE, "secret": ""}
    values = fields.typed(sections, visit.form) if error else fields.written(sections, start)
    to_register = f"{visit.site.url}{callback_path('NAME')}" if new.kind == "oidc" else ""
    return visit.show(
        "directory_new.html", error, title=new.title, sections=sections, values=values, to_register=to_register
    )


def _add(visit: Visit, which: str) -> Response:
    kind = _NEW[which].kind
    problems = Problems()
    values = fields.read({**_NAME, **_FORMS[kind]}, visit.form, problems)
    try:
        with visit.reading() as connection, problems.of("name"):
            directories.check_new(connection, values.get("name", ""))
        made = _directory(visit, kind, values.get("name", ""), values, problems)
        said = _ask(visit, made, values["secret"].encode())
        with visit.changing() as change:
            directories.add(change, made, values["secret"].encode())
    except WgpyError as error:
        return _new(visit, which, error)
    return visit.done(path_of("directories", made.name), f"Directory {made.name} added. {said}")


def _show(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        present = directories.find(connection, visit.name)
    sections = _FORMS[present.kind]
    stored = {**_USUAL[present.kind], **present.settings}
    start = {**stored, **_written(present.groups), "grace": present.grace, "secret": ""}
    values = fields.typed(sections, visit.form) if error else fields.written(sections, start)
    return visit.show(
        "directory_change.html", error, directory=present, sections=sections, values=values,
        revision=revision(present.json()),
    )  # fmt: skip


def _change(visit: Visit) -> Response:
    with visit.reading() as connection:
        present = directories.find(connection, visit.name)
        kept = directories.secret(connection, visit.database.vault, present.name)
    problems = Problems()
    values = fields.read(_FORMS[present.kind], visit.form, problems)
    try:
        changed = _directory(visit, present.kind, present.name, values, problems)
        typed = values["secret"].encode()
        if kept and not typed:
            check_kept(present, changed)
        said = _ask(visit, changed, typed or kept)
        with visit.changing() as change:
            now = directories.find(change.connection, present.name)
            visit.check_unchanged(change.connection, "directory", present.name, now.json())
            directories.replace(change, changed, typed or None)
    except WgpyError as error:
        return _show(visit, error)
    return visit.done(path_of("directories", present.name), f"Directory {present.name} changed. {said}")


def _directory(visit: Visit, kind: str, name: str, values: Mapping[str, Any], problems: Problems) -> Directory:
    """The directory that somebody has typed. Raises Unusable, with the problems that there were before, too."""
    given = {key: value for key, value in values.items() if key in _USUAL[kind]}
    settings: Mapping[str, Any] = {}
    with problems.of("settings"):
        settings = directory_settings(kind, given)
    prefix = values.get("prefix") or None
    if prefix and values.get("all_groups"):
        problems.add("prefix", "prefix: leave it empty, or do not take all groups that have the same name")
    mapping = GroupMapping(names=values.get("names", {}), prefix="" if values.get("all_groups") else prefix)
    with visit.reading() as connection, problems.of("names"):
        groups.check(connection, mapping.names.values())
    with problems.of("name"):
        made = Directory(name=name, kind=kind, settings=settings, groups=mapping, grace=values.get("grace", GRACE))
    problems.check()
    return made


def _ask(visit: Visit, directory: Directory, secret: bytes) -> str:
    """Ask the directory whether it can be used as it is going to be. Returns what to say of that.

    Raises WgpyError if it cannot be, unless the administrator wants to save it nevertheless.
    """
    if visit.form.text("unchecked") == "yes":
        return "It was not asked whether it can be used."
    try:
        identity.check(directory, secret)
    except ConfigError as error:
        raise ConfigError(f"{error}. Nothing was saved") from error
    except ControlError as error:
        raise ControlError(f"{error}. Nothing was saved; you may tick below that it is not to be asked") from error
    return "It answers, and can be used as it is set."


def _written(mapping: GroupMapping) -> dict[str, Any]:
    return {"names": mapping.names, "all_groups": mapping.prefix == "", "prefix": mapping.prefix or ""}


ROUTES: Final = (
    *(page(f"/add/directory/{which}", partial(_new, which=which), fresh=True) for which in _NEW),
    *(action(f"/add/directory/{which}", partial(_add, which=which), fresh=True) for which in _NEW),
    page("/directories/{name}/change", _show, fresh=True),
    action("/directories/{name}/change", _change, fresh=True),
)
