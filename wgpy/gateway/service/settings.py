"""The endpoint's settings, compared with what this host has before they are changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wgpy import control
from wgpy.errors import ConfigError
from wgpy.gateway.enforcement.dataplane import DataPlane
from wgpy.gateway.policy import pools
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.store import endpoint
from wgpy.gateway.store.database import Change


def check_host(settings: Endpoint, *interfaces: str) -> None:
    """Check the pools against what the host has and reaches without its own interface and these. Raises ConfigError."""
    pools.check(settings.pools, DataPlane().networks_of_host(settings.interface, *interfaces))


def change(change: Change, given: Mapping[str, Any]) -> Endpoint:
    """Change the settings that are given, as fields of an Endpoint; returns all of them. Raises ConfigError."""
    before = endpoint.find(change.connection)
    changed = replace(before, **given)
    if changed.pools != before.pools:
        check_host(changed, before.interface)
    if changed.interface != before.interface and before.interface in control.interfaces():
        raise ConfigError(f"interface: {before.interface} is up; remove it first: `wgpy gateway stop`")
    endpoint.replace(change, changed)
    return changed
