"""`wgpy gateway` in a node of a lab, with its database and devices' files among the run's files."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from wgpy.config.wgquick import parse
from wgpy.device.status import PeerStatus
from wgpy.labs.lab import WGPY, Lab
from wgpy.labs.traffic import wait_for


class Gateway:
    """A gateway that `init` makes and `run` starts. Its interface is that of the node's name."""

    def __init__(self, lab: Lab, node: str = "gateway") -> None:
        self._lab, self._node = lab, node
        self._places = ["--directory", str(lab.directory), "--key", str(lab.directory / "gateway.key")]

    def command(self, text: str, *, check: bool = True) -> str:
        """Run a command of `wgpy gateway`, and return what it prints."""
        return self._lab.wgpy(self._node, "gateway", *text.split(), *self._places, check=check)

    def init(self, options: str) -> None:
        """Make the gateway, with options such as its pools."""
        host = self._lab.address(self._node)
        self.command(f"init --interface {self._lab.interface(self._node)} --host {host} {options}")

    def device(self, name: str, user: str) -> None:
        """Add a device, and put its file where `Lab.up` finds it."""
        path = self._lab.directory / f"{self._lab.interface(name)}.conf"
        self.command(f"device add {name} --user {user} --output {path}")

    def run(self) -> subprocess.Popen[str]:
        """Run it, and wait until its interface is there."""
        log = (self._lab.directory / "gateway.log").open("w")
        command = (*WGPY, "gateway", "run", *self._places)
        service = self._lab[self._node].popen(*command, stdout=log, stderr=log, cwd=self._lab.directory)
        wait_for(lambda: bool(self.status()["interface_is_up"]))
        return service

    def status(self) -> dict[str, Any]:
        """What `wgpy gateway status` says."""
        found: dict[str, Any] = json.loads(self.command("status --json", check=False))
        return found

    def sessions(self) -> list[Any]:
        """The sessions that are under way."""
        found: list[Any] = json.loads(self.command("session list --json"))
        return found

    def peer(self, device: str) -> PeerStatus:
        """What the interface says of a device."""
        private_key = parse(self._lab.file(f"{device}.conf").read_text()).config.private_key
        assert private_key is not None
        peers = self._lab.status(self._node).peers
        return next(peer for peer in peers if peer.public_key == private_key.public_key)
