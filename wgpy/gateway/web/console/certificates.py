"""Client certificates: whose are accepted, what is revoked, and which devices have one."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.identity.administration import change_authority
from wgpy.gateway.identity.certificates import facts, read_lists
from wgpy.gateway.policy.certificates import CRL_MARK, LONGEST_LISTS, Authority, NameFrom
from wgpy.gateway.policy.problems import Problems, Unusable
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.store import audit, certificates
from wgpy.gateway.web.console import fields
from wgpy.gateway.web.console.fields import Field, Sections
from wgpy.gateway.web.console.visit import Visit, action, page
from wgpy.gateway.web.security import LONGEST_BODY

_NAMES: Final = {
    NameFrom.CN: "the common name of the subject",
    NameFrom.EMAIL: "the e-mail address in subjectAltName",
    NameFrom.UPN: "the user principal name in subjectAltName",
}
_AUTHORITY: Final[Sections] = {
    "Whose certificates are accepted": (
        fields.text("ca", "Certificates of the authority", "In PEM: the root, and intermediate ones if there are any."),
        Field(
            "name_from", "What names the user", kind="select",
            options=tuple((each.value, text) for each, text in _NAMES.items()),
        ),
    )
}  # fmt: skip
_KIND: Final = ("authority", "certificates")  # what the audit log calls it


def _show(visit: Visit, error: WgpyError | None = None, form: str = "") -> Response:
    """The page. With an error, `form` names the one that it is about, and what was typed there is shown again."""
    with visit.reading() as connection:
        authority = certificates.find_authority(connection)
        bound = certificates.page(connection, visit.number)
        history = audit.of(connection, *_KIND)
    found, trouble = [], ""
    if authority:
        try:
            found = facts(authority.ca, read_lists(authority), visit.wall)
        except ConfigError as problem:
            found, trouble = facts(authority.ca, None, visit.wall), str(problem)
    present = {"ca": authority.ca if authority else "", "name_from": authority.name_from if authority else "cn"}
    is_typed = form == "authority"
    return visit.show(
        "certificates.html", error, authority=authority, facts=found, trouble=trouble, page=bound, history=history,
        sections=_AUTHORITY, names=_NAMES, lists=visit.form.text("crl") if form == "lists" else "",
        values=fields.typed(_AUTHORITY, visit.form) if is_typed else fields.written(_AUTHORITY, present),
        revision=revision(_seen(authority)), most=LONGEST_LISTS >> 10,
    )  # fmt: skip


def _set(visit: Visit) -> Response:
    problems = Problems()
    given = fields.read(_AUTHORITY, visit.form, problems)
    try:
        problems.check()
        _change(visit, given)
    except WgpyError as error:
        return _show(visit, error, "authority")
    return visit.done("/certificates", "Certificates of this authority are accepted.")


def _set_lists(visit: Visit) -> Response:
    lists = visit.form.text("crl")
    try:
        if CRL_MARK not in lists:
            raise Unusable({"crl": f"expected one or more lists in PEM, which begin with {CRL_MARK}"})
        _change(visit, {"crl": f"{lists}\n"})
    except WgpyError as error:
        return _show(visit, error, "lists")
    return visit.done("/certificates", "These lists say which certificates are revoked.")


def _remove_lists(visit: Visit) -> Response:
    with visit.changing() as change:
        change_authority(change, {"crl": ""})
    return visit.done("/certificates", "No certificate counts as revoked any more.")


def _remove(visit: Visit) -> Response:
    with visit.changing() as change:
        certificates.set_authority(change, None)
    return visit.done("/certificates", "No certificates are accepted any more.")


def _unbind(visit: Visit) -> Response:
    with visit.changing() as change:
        certificates.unbind(change, visit.name)
    return visit.done("/certificates", f"Device {visit.name} does without a certificate.")


def _change(visit: Visit, given: dict[str, Any]) -> None:
    with visit.changing() as change:
        visit.check_unchanged(change.connection, *_KIND, _seen(certificates.find_authority(change.connection)))
        change_authority(change, given)


def _seen(authority: Authority | None) -> dict[str, Any]:
    return authority.json() if authority else {}


ROUTES: Final = (
    page("/certificates", _show),
    action("/certificates", _set, fresh=True),
    action("/certificates/lists", _set_lists, fresh=True, most=LONGEST_BODY),
    action("/certificates/lists/remove", _remove_lists, fresh=True),
    action("/certificates/remove", _remove, fresh=True),
    action("/certificates/{name}/unbind", _unbind, fresh=True),
)
