"""`wgpy client`: a gateway's file, a client's file, and the interface, in step."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_commands import wgpy
from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.support.forked import forked_wgpy
from tests.support.peers import WGPY, Wgpy, wait_for
from wgpy.cli import main
from wgpy.config.wgquick import parse
from wgpy.keys import PrivateKey, PublicKey

GATEWAY = f"""\
[Interface]
# Endpoint = vpn.example.org
PrivateKey = {PrivateKey(b"g" * 32).base64()}
Address = 10.8.0.1/24
ListenPort = 51820
# kept
"""


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "absent0.conf"
    path.touch(mode=0o600)
    path.write_text(GATEWAY)
    return path


def client(gateway: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return wgpy("client", *arguments, "--config", str(gateway))


def test_a_clients_whole_life(gateway: Path) -> None:
    assert client(gateway, "add", "alice").returncode == 0
    made = Path("alice.conf")
    assert made.stat().st_mode & 0o777 == 0o600
    config = parse(made.read_text()).config
    assert [str(network) for network in config.peers[0].allowed_ips] == ["10.8.0.0/24"]
    assert str(config.peers[0].endpoint) == "vpn.example.org:51820"
    assert config.private_key is not None
    (listed,) = json.loads(client(gateway, "list", "--json").stdout)
    public_key = config.private_key.public_key.base64()
    assert listed == {"name": "alice", "public_key": public_key, "allowed_ips": ["10.8.0.2/32"], "enabled": True}
    assert client(gateway, "disable", "alice").returncode == 0
    header, row = client(gateway, "list").stdout.splitlines()
    assert header.split("  ")[0] == "NAME"
    assert row.split() == ["alice", public_key, "disabled", "10.8.0.2/32"]
    assert header.index("ALLOWED IPS") == row.index("10.8.0.2/32")
    assert client(gateway, "enable", "alice").returncode == 0
    assert client(gateway, "remove", "alice").returncode == 0
    assert client(gateway, "list").stdout == f"{header}\n"
    assert gateway.read_text().rstrip() == GATEWAY.rstrip()
    assert gateway.stat().st_mode & 0o777 == 0o600


def test_a_client_with_a_full_tunnel_and_another_endpoint(gateway: Path) -> None:
    options = ("--full", "--endpoint", "[2001:db8::1]:7", "--dns", "10.8.0.1", "--pool", "10.9.0.0/24", "--json")
    said = json.loads(client(gateway, "add", "bob", *options).stdout)
    assert said["addresses"] == ["10.9.0.1/32"]
    assert said["applied"] is False
    text = Path("bob.conf").read_text()
    for line in ("AllowedIPs = 0.0.0.0/0, ::/0", "Endpoint = [2001:db8::1]:7", "DNS = 10.8.0.1"):
        assert line in text


def test_arguments_and_options_may_be_in_any_order(gateway: Path) -> None:
    for arguments in (["add", "--config", str(gateway), "a"], ["--config", str(gateway), "add", "b"]):
        assert wgpy("client", *arguments).returncode == 0
    assert [line.split()[0] for line in client(gateway, "list").stdout.splitlines()] == ["NAME", "a", "b"]
    assert wgpy("client", "list", "--config", str(gateway), "a").returncode == 2


def test_a_name_server_must_be_an_address(gateway: Path) -> None:
    done = client(gateway, "add", "bob", "--dns", "ns.example")
    assert done.stderr == "wgpy: --dns: 'ns.example' does not appear to be an IPv4 or IPv6 address\n"
    assert not Path("bob.conf").exists()
    assert gateway.read_text() == GATEWAY


@pytest.mark.root
def test_a_qr_code_holds_the_file_and_only_its_owner_may_read_it(gateway: Path) -> None:
    done = client(gateway, "add", "carol", "--qr")
    picture = Path("carol.png")
    assert picture.stat().st_mode & 0o777 == 0o600
    assert done.stdout.count("█") > 100
    read = subprocess.run(["zbarimg", "-q", "--raw", str(picture)], capture_output=True, text=True, check=True).stdout
    assert read.rstrip() == Path("carol.conf").read_text().rstrip()


def test_a_file_too_long_for_a_qr_code_gives_a_one_line_error(gateway: Path) -> None:
    routes = [option for number in range(240) for option in ("--route", f"172.16.{number}.0/24")]
    done = client(gateway, "add", "carol", "--qr", *routes)
    assert done.returncode == 1
    assert done.stderr.startswith("wgpy: --qr: a QR code holds 2953 bytes, and the file has ")
    assert done.stderr.count("\n") == 1
    assert gateway.read_text() == GATEWAY
    assert [path.name for path in Path().iterdir()] == [gateway.name]


def test_clients_added_at_once_get_addresses_of_their_own(gateway: Path) -> None:
    command = (*WGPY, "client", "--config", str(gateway), "add")
    adding = [subprocess.Popen([*command, f"c{number}"], stdout=subprocess.DEVNULL) for number in range(6)]
    assert [process.wait(60) for process in adding] == [0] * 6
    listed = json.loads(client(gateway, "list", "--json").stdout)
    assert {entry["name"] for entry in listed} == {f"c{number}" for number in range(6)}
    assert {entry["allowed_ips"][0] for entry in listed} == {f"10.8.0.{number}/32" for number in range(2, 8)}


def test_removing_a_client_names_the_files_that_still_hold_its_keys(gateway: Path) -> None:
    for name in ("alice", "bob", "carol"):
        assert client(gateway, "add", name, "--qr").returncode == 0
    Path("elsewhere").mkdir()
    Path("bob.conf").rename("elsewhere/bob.conf")
    Path("alice.png").unlink()
    told = client(gateway, "remove", "alice").stderr.splitlines()
    kept = gateway.parent.resolve() / "alice.conf"
    assert told[1:] == [f"{kept.name} still holds keys of alice: delete it if it is no longer needed"]
    assert json.loads(client(gateway, "remove", "bob", "--json").stdout)["files_left"] == []
    Path("carol.conf").write_text(GATEWAY)  # another's file by now
    assert json.loads(client(gateway, "remove", "carol", "--json").stdout)["files_left"] == []
    assert kept.exists()


@pytest.mark.parametrize("place", ["os.fsync", "os.replace"])
def test_an_interrupted_add_leaves_no_file(gateway: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    assert main(["client", "add", "alice", "--qr", "--config", str(gateway)]) == 130
    assert gateway.read_text() == GATEWAY
    assert [path.name for path in Path().iterdir()] == [gateway.name]


def test_clients_of_overlapping_pools_get_different_addresses(gateway: Path) -> None:
    pools = ("--pool", "10.8.0.0/24", "--pool", "10.8.0.0/16")
    said = json.loads(client(gateway, "add", "dan", *pools, "--json").stdout)
    assert said["addresses"] == ["10.8.0.2/32", "10.8.0.3/32"]


@pytest.mark.parametrize(
    ("key", "address", "says"),
    [
        (PublicKey(b"c" * 32), "10.8.0.9/32", "carol: new now has its key"),
        (PublicKey(b"n" * 32), "10.8.0.2/32", "carol: new now has 10.8.0.2/32"),
    ],
)
def test_a_client_whose_address_was_taken_is_not_enabled(
    gateway: Path, key: PublicKey, address: str, says: str
) -> None:
    disabled = ["[Peer]", "# Name = carol", f"PublicKey = {PublicKey(b'c' * 32).base64()}", "AllowedIPs = 10.8.0.2/32"]
    peer = f"[Peer]\n# Name = new\nPublicKey = {key.base64()}\nAllowedIPs = {address}\n"
    before = GATEWAY + peer + "".join(f"#! {line}\n" for line in disabled)
    gateway.write_text(before)
    done = client(gateway, "enable", "carol")
    assert done.returncode == 1
    assert says in done.stderr
    assert gateway.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("add",), 2, "add needs a name"),
        (("add", "a b"), 1, "expected a name"),
        (("add", ".."), 1, "expected a name"),
        (("add", "x", "--pool", "10.8.0.0/33"), 1, "--pool"),
        (("add", "x", "--pool", "10.8.0.1/32"), 1, "every address of the pool is taken"),
        (("add", "x", "--full", "--route", "10.0.0.0/8"), 2, "--full cannot be used with"),
        (("add", "x", "--endpoint", "bad host"), 1, "Endpoint: expected"),
        (("add", "x", "--output", "/nowhere/x.conf"), 1, "No such file or directory; nothing was changed"),
        (("remove", "x"), 1, "no client has that name"),
        (("list", "x"), 2, "list takes no name"),
    ],
)
def test_a_mistake_is_reported_and_changes_nothing(
    gateway: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    done = client(gateway, *arguments)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert gateway.read_text() == GATEWAY
    assert [path.name for path in Path().iterdir()] == [gateway.name]


def test_an_existing_file_is_not_overwritten(gateway: Path) -> None:
    Path("alice.conf").write_text("mine")
    done = client(gateway, "add", "alice")
    assert done.returncode == 1
    assert "File exists; nothing was changed" in done.stderr
    assert Path("alice.conf").read_text() == "mine"
    assert gateway.read_text() == GATEWAY


@pytest.mark.root
def test_a_running_gateway_adds_and_removes_a_client_while_another_stays_connected(cable: Cable) -> None:
    hub, run = Wgpy(cable.left, cable.directory), cable.left.namespace.run
    cable.cleanup.callback(hub.close)
    far = cable.right.namespace.run

    def manage(*arguments: str) -> str:
        return run(forked_wgpy(), "client", *arguments, "--config", str(hub.path))

    for name in ("one", "two"):
        output = cable.directory / f"{cable.right.name}{name[0]}.conf"
        manage("add", name, "--endpoint", cable.left.endpoint, "--output", str(output))
        output.write_text(output.read_text().replace("[Peer]", "Table = off\n[Peer]"))  # both lead to one network
        far(forked_wgpy(), "up", str(output))
        cable.cleanup.callback(far, forked_wgpy(), "down", str(output), check=False)
    first, second = f"{cable.right.name}o", f"{cable.right.name}t"
    far("ping", "-c", "1", "-W", "5", "-I", first, cable.left.inner4)
    far("ping", "-c", "1", "-W", "5", "-I", second, cable.left.inner4)
    before = run("wg", "show", hub.side.name, "latest-handshakes").split()
    manage("disable", "two")
    assert "100% packet loss" in far("ping", "-c", "1", "-W", "1", "-I", second, cable.left.inner4, check=False)
    far("ping", "-c", "1", "-W", "5", "-I", first, cable.left.inner4)
    assert run("wg", "show", hub.side.name, "latest-handshakes").split() == before[:2]
    manage("enable", "two")
    assert wait_for(
        lambda: "0% packet loss" in far("ping", "-c", "1", "-W", "1", "-I", second, cable.left.inner4, check=False), 30
    )
