"""Clients of a gateway in namespaces, a group's each, of two kinds, which ask the places of AWS's scenarios."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Final

from tests.gateway.enforcement.probes import Probe
from tests.gateway.scenarios import PLACES
from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.peers import Side, WireguardGo, wait_for
from wgpy.config.wgquick import parse

GROUPS: Final = ("engineering", "development", "manager")  # each has a user and a device with the group's name
POOLS: Final = ("10.99.0.0/24", "fd00:99::/64")
BEHIND: Final = ("10.0.0.0/16", "172.16.0.0/24", "192.168.0.0/24", "198.51.100.0/24", "2001:db8::/32")
GATEWAY: Final = ("10.77.0.1", "fd77::1")  # its addresses on the cable to the servers
PROBES: Final = (sys.executable, "-m", "tests.gateway.enforcement.probes")
_EVERY: Final = list(product((0, 1), ("tcp", "udp", "icmp")))  # the IP versions by place, and the protocols


class Clients:
    """By their group's name: their namespaces, and their addresses of both IP versions."""

    clients: dict[str, Namespace]
    addresses: dict[str, tuple[str, str]]

    def connect(self, group: str, path: Path, stack: ExitStack) -> None:
        """Bring up the file of a group's device: on wireguard-go for development, else on wgpy."""
        config, client = parse(path.read_text()).config, self.clients[group]
        inner4, inner6 = self.addresses[group] = tuple(str(address.ip) for address in config.addresses)  # type: ignore[assignment]
        if group == "development":
            assert config.private_key
            text = path.read_text()
            side = Side(client, "", inner4, inner6, key=config.private_key, name=path.stem)
            stack.callback(WireguardGo(side, text[text.index("[Peer]") :]).close)
            for network in BEHIND:
                client.run("ip", "route", "add", network, "dev", path.stem)
        else:
            client.run(forked_wgpy(), "up", str(path))

    def answers(self, group: str, probes: Iterable[tuple[str, str, int]]) -> list[str]:
        """What a group's client is answered by (destination, protocol, port), in its own version's address."""
        asked = [Probe(self.addresses[group][":" in to], to, protocol, port) for to, protocol, port in probes]
        answers: list[str] = json.loads(self.clients[group].run(*PROBES, "ask", input=json.dumps(asked)))
        return answers

    def connected(self, group: str, to: str) -> list[str]:
        """What a group's client is answered by another's, in both IP versions and all protocols."""
        cases = product(self.addresses[to], ("tcp", "udp", "icmp"))
        return self.answers(group, ((address, protocol, 443) for address, protocol in cases))

    def assert_connected_one_way(self, group: str, to: str, third: str) -> None:
        """A group's client reaches the others, from its own address, and they reach nobody."""
        own = self.addresses[group]
        both = [*(own[0],) * 2, "echo", *(own[1],) * 2, "echo"]
        assert wait_for(lambda: self.connected(to, group) == [""] * 6, 90), "the rules of another test are gone"
        self.connected(third, group)  # which begins a session, if there is none
        assert wait_for(lambda: self.connected(group, to) == both, 90)
        assert wait_for(lambda: self.connected(group, third) == both, 90)
        assert self.connected(to, group) == [""] * 6
        assert self.connected(third, to) == [""] * 6

    def reached(self, group: str) -> set[str]:
        """The places that answer a client, over both IP versions and all protocols; an odd one with what is odd."""
        cases = [(place, version, protocol) for place in PLACES for version, protocol in _EVERY]
        answers = self.answers(group, ((PLACES[place][version], protocol, 443) for place, version, protocol in cases))
        found: dict[str, list[str]] = {place: [] for place in PLACES}
        for (place, version, protocol), answer in zip(cases, answers, strict=True):
            if answer in ("echo", GATEWAY[version]):  # which is what servers see, as the routes say
                found[place].append(f"{protocol}{version}")
        return {
            place if len(got) == len(_EVERY) else f"{place} by {', '.join(got)}" for place, got in found.items() if got
        }
