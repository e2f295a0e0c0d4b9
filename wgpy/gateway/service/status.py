"""Whether the gateway runs and is healthy, and how many of what it has, as any process can find out."""

from __future__ import annotations

from typing import Any

from wgpy import control
from wgpy.errors import NetworkError
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.store import endpoint, lookup, nodes, schema
from wgpy.gateway.store.database import Database


def status(database: Database) -> dict[str, Any]:
    """What `wgpy gateway status --json` prints: if "healthy" is false, "why_not" says why. Raises WgpyError."""
    with database.read() as connection:
        settings, interface = endpoint.find(connection), nodes.interface(connection, database.node)
        every_node = [node.json() for node in nodes.find_all(connection)] if database.is_shared else []
        live = lookup.count(connection, schema.sessions, schema.sessions.c.ended_at.is_(None))
        counts = {
            kind.name: lookup.count(connection, kind)
            for kind in (schema.users, schema.devices, schema.routes, schema.rules)
        }
    running, interface_is_up = database.is_running(), control.is_up(interface)
    dropped: dict[str, int] = {}
    try:
        firewall = Firewall(interface, settings.port)
        ailment = "" if firewall.exists() else "its table of nftables is missing"
        dropped = {} if ailment else firewall.dropped()
    except NetworkError as error:
        ailment = str(error)
    if not running:
        ailment = "`wgpy gateway run` is not running"
    elif said := database.ailment():
        ailment = said
    elif not interface_is_up:
        ailment = f"the interface {interface} is missing"
    return {
        "running": running,
        "healthy": not ailment,
        "why_not": ailment,
        "warnings": [*database.warnings().values()],
        "endpoint": f"{settings.host}:{settings.port}",
        "interface": interface,
        "interface_is_up": interface_is_up,
        "sessions": live,
        **counts,
        "nodes": every_node,
        "dropped": dropped,
    }
