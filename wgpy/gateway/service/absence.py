"""Changes of the store while no gateway runs: put in force in the table that the last one left."""

from __future__ import annotations

from math import inf

from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.service.clocks import SLACK
from wgpy.gateway.service.gateway import GRACE
from wgpy.gateway.store import sessions, state
from wgpy.gateway.store.database import Database


def put_in_force(database: Database, firewall: Firewall, wall: float) -> None:
    """Close and shorten sessions as the store says at `wall`, in seconds since 1970, and put its rules in force.

    Nothing happens if there is no table, and no session begins or becomes longer. Raises WgpyError.
    """
    if not firewall.exists():
        return
    present = firewall.sent()  # before the sessions are read: what is open is in the database
    policy, _ = state.read(database)
    with database.read() as connection:
        rows = sessions.under_way(connection, database.node)
    closed, shortened = set(present), dict[Address, float]()
    for row in rows:
        device = policy.devices.get(row["device"])
        if device is None or device.user != row["user"] or row["reason"] is not None:
            continue
        expires = policy.users[device.user].expires
        terms = policy.terms(device.name, device.signed_in_at, inf if expires is None else expires, wall)
        left = terms.until(row["started_at"]) - wall
        if terms.refusal is None and left > 0:
            closed.difference_update(terms.addresses)
            shortened |= {
                address: left + GRACE
                for address in terms.addresses
                if address in present and left + GRACE < present[address].seconds_left - SLACK
            }
    firewall.admit(shortened, closed)
    settings = policy.endpoint
    firewall.replace(settings.pools, policy.compile(), policy.routes, log_denied=settings.flow_log)
