"""The peers with sessions are saved for the next daemon of the interface, which starts handshakes with them."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from wgpy.config.values import InterfaceConfig
from wgpy.constants import REJECT_AFTER_TIME
from wgpy.daemon import sessions
from wgpy.daemon.interface import LocalInterface
from wgpy.daemon.sessions import SessionFile
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.effects import Event, EventKind
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey, PublicKey
from wgpy.tun.memory import MemoryTun
from wgpy.tunnel import Tunnel

OWN, OTHER = PrivateKey(b"o" * 32), PrivateKey(b"x" * 32)
PEERS = [PrivateKey(bytes([number]) * 32).public_key for number in range(1, 4)]
HERE, THERE = Endpoint("192.0.2.1", 1, source=b"\1\2\3\4"), Endpoint("fe80::1", 2, scope_id=3)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sessions, "RUN_DIRECTORY", tmp_path)
    monkeypatch.setattr(sessions, "SAVE_AFTER", 0.01)
    tmp_path.chmod(0o755)
    return tmp_path / "wg0.peers"


def interface(key: PrivateKey = OWN, peers: list[PublicKey] = PEERS) -> LocalInterface:
    made = Tunnel(InterfaceConfig(), tun=MemoryTun("wg0"))
    made.device.configure(
        DeviceChange(private_key=key, peers=tuple(PeerChange(public_key=peer) for peer in peers)), 0.0
    )
    return LocalInterface(made)


def greeted(made: LocalInterface, now: float = 0.0) -> dict[PublicKey, Endpoint]:
    """The peers with which a device that starts now begins handshakes, and their endpoints."""
    kept = SessionFile(made, lambda: now)
    kept.restore()
    device = made._tunnel.device
    if known := kept.known():
        device.resume(*known)
    sent = [*device.start(now).transmits, *device.handle_timeout(now + 10.0).transmits]
    return {transmit.public_key: transmit.endpoint for transmit in sent if transmit.public_key}


def completed(peer: PublicKey, endpoint: Endpoint) -> Event:
    return Event(EventKind.HANDSHAKE_COMPLETED, peer, endpoint)


def live(made: LocalInterface, *events: Event, at_once: bool = True, now: float = 0.0) -> None:
    """The life of a daemon with these events; it is stopped if `at_once`, else killed a little later."""

    async def main() -> None:
        kept = SessionFile(made, lambda: now)
        for event in events:
            kept.happened(event)
        if at_once:
            kept.save()
        else:
            await asyncio.sleep(0.1)

    asyncio.run(main())


@pytest.mark.parametrize("stopped", [True, False])
def test_a_peer_that_had_a_session_gets_a_handshake_at_its_last_endpoint(path: Path, stopped: bool) -> None:
    moved = Event(EventKind.ENDPOINT_MOVED, PEERS[0], THERE)
    lost = Event(EventKind.HANDSHAKE_ABANDONED, PEERS[2], HERE)
    live(interface(), *(completed(peer, HERE) for peer in PEERS), moved, lost, at_once=stopped)
    assert path.stat().st_mode & 0o777 == 0o600
    assert greeted(interface()) == {PEERS[0]: THERE, PEERS[1]: HERE.without_source()}
    assert greeted(interface(peers=PEERS[1:])) == {PEERS[1]: HERE.without_source()}
    assert greeted(interface(OTHER)) == {}


@pytest.mark.parametrize("stopped", [True, False])
def test_a_peer_whose_session_has_expired_gets_no_handshake(path: Path, stopped: bool) -> None:
    """`up` long after `down` or a crash: peers may be gone, and other hosts may have their addresses."""
    moved = Event(EventKind.ENDPOINT_MOVED, PEERS[0], THERE)
    live(interface(), completed(PEERS[0], HERE), moved, at_once=stopped, now=1000.0)
    before = path.read_bytes()
    assert greeted(interface(), 1000.0 + REJECT_AFTER_TIME - 1) == {PEERS[0]: THERE}
    assert greeted(interface(), 1000.0 + REJECT_AFTER_TIME) == {}
    assert greeted(interface(), 7 * 86400.0) == {}
    assert greeted(interface(), 10.0) == {}  # after a reboot, where /run outlives that
    assert path.read_bytes() == before


def test_a_renewed_session_is_kept_and_an_expired_one_is_left_out(path: Path) -> None:
    live(interface(), completed(PEERS[0], HERE), completed(PEERS[1], HERE))
    now = 120.0

    async def main() -> None:
        nonlocal now
        kept = SessionFile(interface(), lambda: now)
        kept.restore()
        kept.happened(completed(PEERS[0], HERE))
        now = 200.0
        kept.save()

    asyncio.run(main())
    assert list(json.loads(path.read_text())["peers"]) == [PEERS[0].base64()]
    assert list(greeted(interface(), 299.0)) == [PEERS[0]]


def test_many_events_cause_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(sessions, "replace_own", lambda _, content: written.append(content))
    live(interface(), *(completed(PEERS[0], HERE) for _ in range(1000)), at_once=False)
    assert len(written) == 1


def test_an_interface_of_the_same_name_in_another_network_namespace_is_a_different_one(path: Path) -> None:
    live(interface(), completed(PEERS[0], HERE))
    noted = json.loads(path.read_text())
    assert noted["namespace"] == Path("/proc/self/ns/net").stat().st_ino
    path.write_text(json.dumps(noted | {"namespace": noted["namespace"] + 1}))
    assert greeted(interface()) == {}


def test_a_removed_peer_is_forgotten_and_all_are_after_a_change_of_the_private_key(path: Path) -> None:
    made = interface()
    asyncio.run(made.configure(DeviceChange(peers=(PeerChange(public_key=PEERS[1], remove=True),))))
    live(made, completed(PEERS[0], HERE), completed(PEERS[1], HERE))
    assert list(json.loads(path.read_text())["peers"]) == [PEERS[0].base64()]
    live(interface(OTHER), completed(PEERS[2], HERE))
    assert greeted(interface()) == {}
    assert list(greeted(interface(OTHER))) == [PEERS[2]]


@pytest.mark.parametrize(
    "wrong", ["link", "readable", "open directory", "garbage", "a list", "no endpoint", "no time", "fifo"]
)
def test_an_untrustworthy_file_is_not_used(path: Path, wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    live(interface(), completed(PEERS[0], HERE))
    text = path.read_text()
    match wrong:
        case "link":
            path.rename(path.with_suffix(".real"))
            path.symlink_to(path.with_suffix(".real"))
        case "fifo":
            path.unlink()
            os.mkfifo(path, 0o600)
        case "readable":
            path.chmod(0o644)
        case "open directory":
            path.parent.chmod(0o777)
        case "garbage":
            path.write_bytes(b"\xff{")
        case "a list":
            path.write_text("[]")
        case "no time":
            path.write_text(text.replace("0.0]", f"1{'0' * 400}]"))
        case "no endpoint":
            path.write_text(text.replace("192.0.2.1:1", "nowhere"))
    assert greeted(interface()) == {}
    assert f"ignoring {path}: " in caplog.text
