"""The authority whose client certificates are accepted, and the devices that certificates are bound to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from wgpy.gateway.policy.certificates import Authority
from wgpy.gateway.store import devices, lookup, paging
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import authority as table
from wgpy.gateway.store.schema import certificates
from wgpy.gateway.store.schema import devices as devices_table

_BOUND: Final = select(certificates, devices_table.c.certificate).join(
    devices_table, devices_table.c.name == certificates.c.device
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A device's certificate."""

    device: str
    subject: str
    serial: str
    """In hexadecimal."""
    expires: float
    """In seconds since 1970."""
    chain: str
    """In PEM, the device's own first."""
    proved_at: float
    """When its owner made the last proof that was taken; an older one, or the same, is not taken again."""
    refusal: str = ""
    """Why it is not accepted; empty if it is."""

    def json(self) -> dict[str, Any]:
        """What is shown of it."""
        return {
            "device": self.device,
            "subject": self.subject,
            "serial": self.serial,
            "expires": self.expires,
            "refusal": self.refusal,
        }


def find_authority(connection: Connection) -> Authority | None:
    """The authority; None if certificates are not accepted."""
    row = connection.execute(select(table)).first()
    return Authority(ca=row.ca, crl=row.crl, name_from=row.name_from) if row else None


def accepted(connection: Connection) -> Authority:
    """The authority. Raises Missing if certificates are not accepted."""
    authority = find_authority(connection)
    if authority is None:
        raise lookup.Missing("certificate: none are accepted; `wgpy gateway certificate set` changes that", "")
    return authority


def set_authority(change: Change, authority: Authority | None) -> None:
    """Accept certificates of this authority, or of none."""
    before = find_authority(change.connection)
    change.connection.execute(delete(table))
    if authority:
        change.connection.execute(insert(table).values(id=1, **authority.json()))
    change.record("authority", "certificates", _recorded(before), _recorded(authority))


def page(connection: Connection, number: int) -> paging.Page[Bound]:
    """A page of the certificates of all devices, by the devices' names."""
    found = paging.find(connection, _BOUND.order_by(certificates.c.device), number)
    return replace(found, rows=list(map(_value, found.rows)))


def find_all(connection: Connection) -> list[Bound]:
    """The certificates of all devices, by the devices' names."""
    return [_value(row) for row in connection.execute(_BOUND.order_by(certificates.c.device))]


def find(connection: Connection, device: str) -> Bound | None:
    """A device's certificate; None if it has none."""
    row = connection.execute(_BOUND.where(certificates.c.device == device)).first()
    return _value(row) if row else None


def bind(change: Change, bound: Bound) -> None:
    """Bind a device to a certificate, instead of the one that it had."""
    change.connection.execute(delete(certificates).where(certificates.c.device == bound.device))
    values = {**bound.json(), "chain": bound.chain, "proved_at": bound.proved_at}
    del values["refusal"]
    change.connection.execute(insert(certificates).values(values))
    devices.judge_certificate(change, bound.device, bound.refusal)
    change.record("certificate", bound.device, None, bound.json())


def unbind(change: Change, device: str) -> None:
    """Let a device do without a certificate. Raises Missing if it has none."""
    before = find(change.connection, device)
    if before is None:
        raise lookup.Missing(
            f"device {device}: it has no certificate; `wgpy gateway certificate list` shows those that do", device
        )
    change.connection.execute(delete(certificates).where(certificates.c.device == device))
    devices.judge_certificate(change, device, None)
    change.record("certificate", device, before.json(), None)


def _recorded(authority: Authority | None) -> dict[str, Any] | None:
    """What the audit log has of an authority: of lists that are long and often new, only which they are."""
    if authority is None or authority.has_file or not authority.crl:
        return authority.json() if authority else None
    return {**authority.json(), "crl": f"lists with the SHA-256 {sha256(authority.crl.encode()).hexdigest()}"}


def _value(row: Any) -> Bound:
    return Bound(
        device=row.device,
        subject=row.subject,
        serial=row.serial,
        expires=row.expires,
        chain=row.chain,
        proved_at=row.proved_at,
        refusal=row.certificate or "",
    )
