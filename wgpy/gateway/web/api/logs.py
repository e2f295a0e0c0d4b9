"""The connection log and the audit log."""

from __future__ import annotations

from typing import Any, ClassVar

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from wgpy.gateway.store import audit, paging, sessions
from wgpy.gateway.web.api.access import READ, reading
from wgpy.gateway.web.api.models import Number, Output, Page, Size, Text, page

router: APIRouter = APIRouter()


def _key(name: str) -> str:
    return name.replace("_", "-")


class Connection(Output):
    """An entry of the connection log, with the keys of AWS Client VPN's. NA is what is not known."""

    model_config: ClassVar[ConfigDict] = ConfigDict(alias_generator=_key)

    connection_log_type: str
    connection_attempt_status: str
    connection_reset_status: str
    connection_attempt_failure_reason: str
    connection_id: str
    client_vpn_endpoint_id: str
    transport_protocol: str
    connection_start_time: str
    connection_last_update_time: str
    client_ip: str
    client_ipv6: str
    common_name: str = Field(description="The device.")
    username: str
    groups: list[str]
    device_ip: str = Field(description="The address that the client comes from.")
    port: str
    ingress_bytes: str
    ingress_packets: str
    egress_bytes: str
    egress_packets: str
    connection_end_time: str
    connection_duration_seconds: str
    connection_end_reason: str
    message: str
    posture_compliance_statuses: list[str]


class Entry(Output):
    """Who changed what."""

    id: int
    at: float
    who: str = Field(description="A user of this host, `token NAME`, or a person.")
    kind: str
    name: str
    before: dict[str, Any] | None = Field(description="What it was; null for what is new.")
    after: dict[str, Any] | None = Field(description="What it is; null for what is gone.")


@router.get("/connections", response_model=Page[Connection], dependencies=[READ])
def connections(
    request: Request, page_number: Number = 1, size: Size = paging.SIZE, text: Text = "", reason: Text = ""
) -> Any:
    """The connection log, the newest entry first; of one reason of the end, if it is given."""
    with reading(request) as connection:
        return page(sessions.page(connection, page_number, text, reason, size=size))


@router.get("/audit", response_model=Page[Entry], dependencies=[READ])
def changes(
    request: Request, page_number: Number = 1, size: Size = paging.SIZE, text: Text = "", kind: Text = ""
) -> Any:
    """The audit log, the newest entry first; of one kind of object, if it is given."""
    with reading(request) as connection:
        return page(audit.page(connection, page_number, text, kind, size=size))
