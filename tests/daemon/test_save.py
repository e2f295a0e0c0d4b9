"""`wgpy save` and SaveConfig write the interface's state to the file, and what people wrote there stays."""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path

import pytest

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.nobody import NOBODY
from tests.support.peers import WGPY, fresh_name
from wgpy.config.wgquick import parse
from wgpy.daemon.files import replace_text
from wgpy.daemon.save import save
from wgpy.device.status import DeviceStatus
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

ALICE, BOB = (PrivateKey(letter * 32).public_key.base64() for letter in (b"a", b"b"))


class Host:
    """A namespace in which one interface is up, from a file written by hand."""

    def __init__(self, namespace: Namespace, directory: Path, interface: str = "") -> None:
        self.run = namespace.run
        self.name = fresh_name()
        self.path = directory / f"{self.name}.conf"
        self.text = f"""\
# Kept by hand, mostly.
[Interface]
PrivateKey = {PrivateKey(b"k" * 32).base64()}
address = 10.9.0.1/24  # ours
ListenPort = 51820
PostUp = true # %i
{interface}
[Peer]
# Name = Alice
PublicKey = {ALICE}
AllowedIPs = 10.9.0.3/32,10.9.0.2/32
Endpoint = localhost:7

# Bob moves about
[Peer]
PublicKey = {BOB}
AllowedIPs = 10.9.0.4/32
Endpoint = 192.0.2.7:7
"""
        self.path.write_text(self.text)
        self.path.chmod(0o600)
        self.wgpy("up")

    def wgpy(self, verb: str, *, check: bool = True) -> str:
        return self.run(forked_wgpy(), verb, str(self.path), check=check)

    def set(self, *settings: str) -> None:
        self.run("wg", "set", self.name, *settings)


def test_save_leaves_a_file_alone_that_matches_the_interface(tmp_path: Path) -> None:
    with Namespace() as namespace:
        host = Host(namespace, tmp_path)
        before = host.path.stat()
        host.wgpy("save")
        assert host.path.read_text() == host.text
        assert host.path.stat().st_ino == before.st_ino
        host.wgpy("down")


def test_only_what_has_changed_is_saved(tmp_path: Path) -> None:
    with Namespace() as namespace:
        host = Host(namespace, tmp_path)
        new = PrivateKey(b"n" * 32).public_key.base64()
        host.set("listen-port", "5000", "peer", BOB, "endpoint", "192.0.2.8:9", "persistent-keepalive", "25")
        host.set("peer", new, "allowed-ips", "10.9.0.5/32")
        host.run("ip", "address", "add", "fd09::1/64", "dev", host.name)
        host.path.chmod(0o640)
        said = host.run(forked_wgpy(), "save", "--json", str(host.path))
        changes = json.loads(said)
        assert changes["interface_changed"] is True
        assert changes["peers"] == {"added": [new], "removed": [], "changed": [BOB]}
        expected = (
            host.text.replace("10.9.0.1/24  #", "10.9.0.1/24, fd09::1/64  #")
            .replace("ListenPort = 51820", "ListenPort = 5000")
            .replace("192.0.2.7:7\n", "192.0.2.8:9\nPersistentKeepalive = 25\n")
        )
        assert host.path.read_text() == f"{expected}\n[Peer]\nPublicKey = {new}\nAllowedIPs = 10.9.0.5/32\n"
        assert host.path.stat().st_mode & 0o777 == 0o640
        assert os.listdir(tmp_path) == [host.path.name], "no temporary file stays behind"
        host.wgpy("down")


def test_the_interface_is_read_while_the_file_is_locked(tmp_path: Path) -> None:
    """Otherwise a client that `wgpy client add` has put into the file but not the interface yet would be lost."""
    path = tmp_path / "lo.conf"
    path.write_text("[Interface]\nAddress = 127.0.0.1/8, ::1/128\n")

    def status(name: str) -> DeviceStatus:
        assert name == "lo"
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return DeviceStatus(listen_port=7)

    assert str(save("lo", path, status)) == f"{path}: saved: [Interface] changed"
    assert "ListenPort = 7" in path.read_text()


def test_a_default_routes_mark_is_not_saved_unless_it_was_given(tmp_path: Path) -> None:
    with Namespace() as namespace:
        host = Host(namespace, tmp_path)
        host.set("peer", BOB, "allowed-ips", "0.0.0.0/0")
        host.wgpy("save")
        text = host.text.replace("AllowedIPs = 10.9.0.4/32", "AllowedIPs = 0.0.0.0/0")
        assert host.path.read_text() == text
        host.wgpy("apply")
        assert host.run("wg", "show", host.name, "fwmark").strip() == "0xca6c"
        host.wgpy("save")
        assert host.path.read_text() == text
        host.wgpy("down")


@pytest.mark.parametrize("setting", ["true", "false"])
def test_with_save_config_down_saves_after_pre_down(tmp_path: Path, setting: str) -> None:
    with Namespace() as namespace:
        hook = f"PreDown = wg set %i peer {BOB} remove"
        host = Host(namespace, tmp_path, f"SaveConfig = {setting}\n{hook}")
        host.wgpy("down")
        bob = host.text.index("\n# Bob")
        saved = host.text[: bob + 1] if setting == "true" else host.text
        assert host.path.read_text().rstrip() == saved.rstrip()


def test_down_succeeds_though_the_file_cannot_be_written(tmp_path: Path) -> None:
    with Namespace() as namespace:
        host = Host(namespace, tmp_path, "SaveConfig = true")
        host.path.unlink()
        said = host.wgpy("down")
        assert "No such file or directory; saved to" in said
        assert host.name not in host.run("ip", "-o", "link")
        (kept,) = tmp_path.iterdir()
        assert str(kept) in said
        assert kept.stat().st_mode & 0o777 == 0o600
        assert parse(kept.read_text()).config == parse(host.text).config


@pytest.mark.parametrize("replaceable", [True, False])
def test_nothing_is_lost_under_the_capabilities_of_the_unit(tmp_path: Path, replaceable: bool) -> None:
    """Root's file has a group that this root may not set; the directory is root's, or another user's."""
    unit = (Path(__file__).parents[2] / "systemd/wgpy@.service").read_text()
    (bounding,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    left = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in bounding.split())
    confined = ("setpriv", "--no-new-privs", f"--bounding-set=-all,{left}", f"--inh-caps=-all,{left}", "--clear-groups")
    with Namespace() as namespace:
        host = Host(namespace, tmp_path)
        host.set("peer", BOB, "remove")
        os.chown(host.path, 0, 7)
        host.path.chmod(0o640)
        if not replaceable:
            os.chown(tmp_path, NOBODY, 0)
            tmp_path.chmod(0o755)
        inode = host.path.stat().st_ino
        said = host.run(*confined, *WGPY, "save", str(host.path))
        assert said == f"{host.path}: saved: 1 peer removed\n"
        assert BOB not in host.path.read_text()
        assert ALICE in host.path.read_text()
        status = host.path.stat()
        assert (status.st_ino, status.st_uid, status.st_gid, status.st_mode & 0o777) == (inode, 0, 7, 0o640)
        host.path.chmod(0o600)
        os.chown(host.path, NOBODY, NOBODY)
        said = host.run(*confined, *WGPY, "save", str(host.path), check=False)
        assert f"chown root {host.path}" in said
        assert "run as root" not in said
        assert host.wgpy("save") == f"{host.path}: nothing to save\n"
        host.wgpy("down")


def test_save_and_apply_report_a_missing_interface_in_one_line(tmp_path: Path) -> None:
    with Namespace() as namespace:
        host = Host(namespace, tmp_path)
        host.wgpy("down")
        for command in ("save", "apply"):
            said = host.wgpy(command, check=False)
            assert said.count("\n") == 1, said
            assert said.startswith(f"wgpy: {host.name}: No such device")


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    with Namespace() as namespace:
        host = Host(namespace, tmp_path)
        host.set("listen-port", "5000")
        steps = [  # in a mount namespace of its own
            f"mount -t tmpfs -o size=8k tmpfs {full}",
            f"cp {host.path} {full}",
            f"! head -c 9000 /dev/zero 2>&1 >{full}/filler",
            f"! {' '.join(WGPY)} save {full}/{host.path.name}",
            f"cmp {host.path} {full}/{host.path.name}",
            f"ls -A {full}",
        ]
        said = host.run("bash", "-ec", "; ".join(steps)).splitlines()
        assert said[-3].endswith("cannot be written, and is unchanged: No space left on device")
        assert said[-2:] == sorted(["filler", host.path.name])
        host.wgpy("down")


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target.conf", tmp_path / "wg0.conf"
    target.write_text("before")
    link.symlink_to(target)
    replace_text(link, "after")
    assert link.is_symlink()
    assert target.read_text() == "after"
