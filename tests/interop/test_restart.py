"""A restart of wgpy, seen by the kernel and wireguard-go: they get a handshake before they notice."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.support.forked import forked_wgpy
from tests.support.peers import Wgpy, capture, peer_section, wait_for
from wgpy.constants import INITIATION_SIZE, RESPONSE_SIZE, TRANSPORT_OVERHEAD
from wgpy.daemon.uapi_client import serving_pid

pytestmark = [pytest.mark.root, pytest.mark.without_wgpy]


@pytest.mark.parametrize("how", ["down", "kill"])
def test_after_a_restart_the_first_datagram_is_an_initiation(cable_to_program: Cable, how: str) -> None:
    """To a peer whose endpoint the configuration does not give. It pings meanwhile, and has to begin nothing itself."""
    cable = cable_to_program
    left, right = cable.left, cable.right
    cable.open(right, peer_section(left))
    ours = Wgpy(left, cable.directory, peer_section(right, endpoint=None))
    cable.cleanup.callback(left.namespace.run, forked_wgpy(), "down", left.name, check=False)
    right.namespace.run("ping", "-c", "1", "-W", "5", left.inner4)
    assert wait_for(Path(f"/run/wgpy/{left.name}.peers").exists)
    with capture(left.namespace, "veth0", f"udp port {right.port}") as seen:
        if how == "kill":
            os.kill(serving_pid(left.name), signal.SIGKILL)
            assert wait_for(lambda: left.name not in left.namespace.run("ip", "-o", "link"))
        else:
            left.namespace.run(forked_wgpy(), "down", left.name)
        right.namespace.run("ping", "-c", "1", "-W", "0.1", left.inner4, check=False)  # into the void
        left.namespace.run(forked_wgpy(), "up", str(ours.path))
        right.namespace.run("ping", "-c", "1", "-W", "5", left.inner4)
    sent = [(f"{left.outer}.{left.port} > " in line, int(re.findall(r"length (\d+)", line)[-1])) for line in seen]
    assert [length for is_ours, length in sent if is_ours][:2] == [INITIATION_SIZE, TRANSPORT_OVERHEAD]
    theirs_sent = [length for is_ours, length in sent if not is_ours]
    assert theirs_sent.count(RESPONSE_SIZE) == 1
    assert INITIATION_SIZE not in theirs_sent
