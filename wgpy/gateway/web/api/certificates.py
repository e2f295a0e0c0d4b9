"""Client certificates: whose are accepted, and which devices have one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.identity.administration import change_authority
from wgpy.gateway.policy.certificates import CRL_MARK, NameFrom
from wgpy.gateway.store import certificates
from wgpy.gateway.web.api.access import CREDENTIALS, READ, WRITE, changing, reading, require_here
from wgpy.gateway.web.api.models import Input, Output

router: APIRouter = APIRouter()


class Authority(Output):
    """The authority whose client certificates are accepted."""

    ca: str = Field(description="Its certificates in PEM.")
    crl: str = Field(description="Its lists of revoked certificates in PEM, or the file that has them; empty for none.")
    name_from: NameFrom = Field(description="What of a certificate names the user.")


class AuthorityChange(Input):
    """What to change; `ca` is needed the first time."""

    ca: str = ""
    crl: str = Field(
        default="",
        description="Its lists of revoked certificates in PEM. At the unix socket only: the path of a file on the "
        "gateway, or nothing for none.",
    )
    name_from: str = Field(default=NameFrom.CN.value, examples=[*NameFrom])

    @classmethod
    def lines(cls) -> tuple[str, ...]:
        return ("ca", "crl")


class Bound(Output):
    """A device's certificate."""

    device: str
    subject: str
    serial: str
    expires: float
    refusal: str = Field(description="Why it is not accepted; empty if it is.")


@router.get("/certificates", response_model=list[Bound], dependencies=[READ])
def find_all(request: Request) -> Any:
    """The certificates that devices are bound to."""
    with reading(request) as connection:
        return [bound.json() for bound in certificates.find_all(connection)]


@router.get("/certificates/authority", response_model=Authority, dependencies=[READ])
def find_authority(request: Request) -> Any:
    """Whose certificates are accepted."""
    with reading(request) as connection:
        return certificates.accepted(connection).json()


@router.patch("/certificates/authority", response_model=Authority, dependencies=[CREDENTIALS])
def change(request: Request, body: AuthorityChange) -> Any:
    """Accept client certificates of this authority."""
    given = body.given()
    if "crl" in given and CRL_MARK not in body.crl:
        require_here(request, "crl")
    with changing(request) as changed:
        return change_authority(changed, given).json()


@router.delete("/certificates/authority", status_code=204, dependencies=[CREDENTIALS])
def unset(request: Request) -> None:
    """Accept no certificates any more; the sessions of devices with one end."""
    with changing(request) as changed:
        certificates.set_authority(changed, None)


@router.delete("/certificates/{device}", status_code=204, dependencies=[WRITE])
def unbind(request: Request, device: str) -> None:
    """Let a device do without its certificate."""
    with changing(request) as changed:
        certificates.unbind(changed, device)
