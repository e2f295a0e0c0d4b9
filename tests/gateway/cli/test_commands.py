"""The commands: what they print, change and refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

import wgpy
from tests.gateway.identity.authority import Authority
from tests.gateway.identity.oidc.fake import ISSUER, Fake
from wgpy.cli import main
from wgpy.cli.commands import parser
from wgpy.config.wgquick import parse
from wgpy.device.device import Device
from wgpy.device.status import DeviceStatus
from wgpy.gateway.cli import OBJECTS, common
from wgpy.gateway.enforcement.dataplane import DataPlane
from wgpy.gateway.identity import administration
from wgpy.gateway.policy.people import User
from wgpy.gateway.store import directories, links, state, users
from wgpy.gateway.store.database import Database
from wgpy.keys import PresharedKey, PrivateKey

Gateway = Callable[..., Any]


HOST = {"this host's address on eth0,": [ip_network("192.0.2.1/32")]}
MADE = (
    "init --host vpn.example.org --pool 10.99.0.0/24 --pool fd00:99::/64 --dns 10.50.0.53 --search corp.example",
    "group add staff",
    "user add alice --group staff --expires 2030-12-31",
    "route add 10.50.0.0/16",
    "rule add web 10.50.1.0/24:443/tcp --group staff",
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a gateway's directory and key are that `gateway` copies: to make it takes longer than most tests."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataPlane, "networks_of_host", lambda self, *interfaces: HOST)
        for command in MADE:
            places = ("--directory", str(place / "gateway"), "--key", str(place / "gateway.key"))
            assert main(["gateway", *command.split(), *places]) == 0
    return place


@pytest.fixture
def gateway(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gateway:
    """Runs `wgpy gateway ... --json`, and returns what it prints; or the error, if it fails."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("WGPY_GATEWAY", str(tmp_path / "gateway"))
    monkeypatch.setenv("WGPY_GATEWAY_KEY", str(tmp_path / "gateway.key"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DataPlane, "networks_of_host", lambda self, *interfaces: HOST)

    def run(command: str, *, status: int = 0, as_json: bool = True) -> Any:
        assert main(["gateway", *command.split(), *(["--json"] if as_json else [])]) == status
        printed = capsys.readouterr()
        if not as_json:
            return printed.out + printed.err
        return json.loads(printed.out) if printed.out else printed.err.removeprefix("wgpy: ").strip()

    return run


def test_a_device_gets_a_file_for_any_wireguard_app_and_its_private_key_is_nowhere_else(
    gateway: Gateway, tmp_path: Path
) -> None:
    made = gateway("device add phone --user alice --qr")
    assert made["files"] == ["phone.conf", "phone.png"]
    assert made["addresses"] == ["10.99.0.2", "fd00:99::2"]
    assert (tmp_path / "phone.conf").stat().st_mode & 0o777 == 0o600
    config = parse((tmp_path / "phone.conf").read_text()).config
    (peer,) = config.peers
    assert [str(network) for network in peer.allowed_ips] == ["10.99.0.0/24", "fd00:99::/64", "10.50.0.0/16"]
    assert str(peer.endpoint) == "vpn.example.org:51820"
    assert (config.dns, config.dns_search) == (("10.50.0.53",), ("corp.example",))
    assert config.private_key
    assert peer.preshared_key
    assert config.private_key.public_key.base64() == made["public_key"]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "gateway").iterdir())
    for secret in (config.private_key.base64().encode(), bytes(config.private_key), bytes(peer.preshared_key)):
        assert secret not in stored
    assert gateway("device list") == [{key: value for key, value in made.items() if key != "files"}]


def test_a_device_whose_owner_keeps_the_key_and_a_full_tunnel(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "banner").write_text("Welcome.\nCall 1234 for help.\n")
    gateway("endpoint set --full-tunnel --banner banner --mtu 1380")
    key = PrivateKey.generate().public_key.base64()
    assert gateway(f"device add laptop --user alice --public-key {key} --address 10.99.0.77")["public_key"] == key
    text = (tmp_path / "laptop.conf").read_text()
    assert text.startswith("# Welcome.\n# Call 1234 for help.\n# Add a line to [Interface]: PrivateKey")
    config = parse(text).config
    assert (config.private_key, config.mtu) == (None, 1380)
    assert [str(network) for network in config.peers[0].allowed_ips] == ["0.0.0.0/0", "::/0"]
    assert gateway("device list")[0]["addresses"] == ["10.99.0.77", "fd00:99::2"]


def test_the_test_command_names_the_deciding_rule_and_its_status_is_the_decision(gateway: Gateway) -> None:
    allowed = gateway("test alice 10.50.1.5:443/tcp")
    assert (allowed["allowed"], allowed["rule"], allowed["prefix"]) == (True, "web", "10.50.1.0/24")
    assert "only 443/tcp is allowed there" in gateway("test alice 10.50.1.5:80/tcp", status=1)["why"]
    assert gateway("test alice 10.50.2.1", status=1)["why"] == "no rule contains 10.50.2.1"
    gateway("user disable alice")
    assert "; but alice is disabled" in gateway("test alice 10.50.1.5:443/tcp", as_json=False)


def test_groups_rules_and_routes_can_be_changed(gateway: Gateway) -> None:
    gateway("group add ops")
    assert gateway("group set staff --description everybody")["description"] == "everybody"
    assert gateway("rule set web --destination 10.50.0.0/16")["groups"] == ["staff"]
    changed = {"name": "web", "destination": "10.50.0.0/16", "groups": [], "everyone": True}
    assert gateway("rule set web --everyone") == changed
    assert gateway("rule list") == [changed]
    assert gateway("rule set web --group ops --group staff")["groups"] == ["ops", "staff"]
    assert gateway("route set 10.50.0.0/16 --snat 10.50.0.4") == gateway("route list")[0]
    what = [(entry["kind"], entry["before"] is None) for entry in gateway("log --audit")]
    assert what[-5:] == [("group", False), ("rule", False), ("rule", False), ("rule", False), ("route", False)]


def test_init_makes_the_first_administrator_with_a_link_for_one_sign_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DataPlane, "networks_of_host", lambda self, *interfaces: {})
    places = ["--directory", str(tmp_path / "gateway"), "--key", str(tmp_path / "gateway.key")]
    command = ["init", *places, "--host", "vpn.example.org", "--pool", "10.99.0.0/24", "--admin", "ann"]
    assert main(["gateway", *command]) == 1
    assert "--admin is for the console, which is at --url" in capsys.readouterr().err
    assert main(["gateway", *command, "--url", "https://vpn.example.org"]) == 0
    printed = capsys.readouterr()
    url = printed.out.strip()
    assert url.startswith("https://vpn.example.org/set-up/")
    assert "ann chooses a password at this link" in printed.err
    database = Database(tmp_path / "gateway" / "gateway.db", tmp_path / "gateway.key")
    with database.read() as connection:
        assert users.find(connection, "ann").groups == {"admins"}
        assert administration.has_administrator(connection)
        assert links.find(connection, links.SET_UP, url.rpartition("/")[2], time.time()) == "ann"
    database.close()


REFUSED = {
    "group set stuff --description x": "group 'stuff': there is none of that name; did you mean staff?",
    "rule set web": "rule set: nothing to change; give --destination, --group or --everyone",
    "rule set wub --everyone": "rule 'wub': there is none of that name; did you mean web?",
    "rule set web --group stuff": "group 'stuff': there is none of that name",
    "rule set web --group staff --everyone": "rule web: it is for everyone and for groups",
    "route set 10.51.0.0/16 --snat none": "route 10.51.0.0/16: there is none; the routes are: 10.50.0.0/16",
    "init --host vpn.example.org --pool 10.0.0.0/8": "endpoint: there is one already; `wgpy gateway endpoint set`",
    "user add alice": "user alice: exists already",
    "user add al/ice": "user 'al/ice': expected a name of ASCII letters",
    "user add bob --group stuff": "group 'stuff': there is none of that name; did you mean staff?",
    "user add bob --expires 9999-12-31": "date '9999-12-31': expected one such as",
    "user remove \udcff": "name '\\udcff': has control characters, or bytes that are not UTF-8",
    "group add ops --description a\x1bb": "description 'a\\x1bb': has control characters",
    "log -n 99999999999999999999": "lines 99999999999999999999: expected 1 to 1000000",
    "user set bob --group staff": "user 'bob': there is none of that name",
    "user add bob --expires tomorrow": "date 'tomorrow': expected one such as 2026-12-31",
    "group remove staff": "group staff: user alice uses it",
    "rule add all 0.0.0.0/0": "rule all: it is for no one",
    "rule add all 10.0.0.0/8:0/tcp --everyone": "ports go from 1 to 65535",
    "rule remove wub": "rule 'wub': there is none of that name; did you mean web?",
    "route add 10.99.0.0/16": "pool 10.99.0.0/24: overlaps route 10.99.0.0/16",
    "route add 10.0.0.1/8": "10.0.0.1/8 has host bits set; expected a network such as",
    "device add phone --user alicia": "user 'alicia': there is none of that name; did you mean alice?",
    "device add phone --user alice --address 10.98.0.1": "address 10.98.0.1: not in a pool",
    "device add phone --user alice --public-key x": "a key is 44 base64 characters",
    "endpoint set --pool 192.0.2.0/24": "pool 192.0.2.0/24: overlaps this host's address on eth0, 192.0.2.1/32; choose",
    "init --host vpn.example.org --pool 192.0.0.0/16": "pool 192.0.0.0/16: overlaps this host's address on eth0,",
    "endpoint set": "nothing to change",
    "endpoint set --url http://vpn.example.org": "url 'http://vpn.example.org': expected https://, a name",
    "endpoint set --url https://vpn.example.org/": "such as https://vpn.example.org",
    "endpoint set --url https://vpn.example.org:443": "perhaps a port other than 443",
    "endpoint set --url https://[::1%x]": "expected https://",
    "endpoint set --admin-group a,b": "admin_group 'a,b': expected a name of ASCII letters",
    "run --certificate c.pem": "run: --certificate and --certificate-key belong together",
    "run --proxy 127.0.0.1": "run: --https HOST:PORT is missing",
    "run --https [::]:443 --proxy me": "proxy 'me': expected an address",
    "endpoint set --session-max 367d": "session_max 31708800: expected a number of seconds",
    "endpoint set --idle-max 367d": "idle_max 31708800: expected a number of seconds up to 31622400",
    "endpoint set --dns fe80::1%x": "dns 'fe80::1%x': expected an address",
    "endpoint set --pool fe80::%x/64": "an address with a zone such as %eth0 is not usable",
    "route add ::/0 --snat fe80::1%x;": "snat 'fe80::1%x;' is neither masquerade, none nor an address",
    "device add phone --user alice --address fd00:99::7%x;": "address 'fd00:99::7%x;': expected an address",
    "endpoint set --session-max soon": "duration 'soon': expected a number with s, m, h or d",
    "endpoint set --pool 10.99.0.0/24 --pool 10.99.0.0/25": "pool 10.99.0.0/24: overlaps pool 10.99.0.0/25",
    "session terminate alice": "session 'alice': no session, device or user of that name is connected",
    "test alice 10.50.0.0/16": "expected one address",
    "import nothing.conf": "nothing.conf: No such file",
    "restore nothing.db": "there is no such file",
}


@pytest.mark.parametrize("command", REFUSED)
def test_a_mistake_gives_one_sentence_and_changes_nothing(command: str, gateway: Gateway, tmp_path: Path) -> None:
    before, files = gateway("log --audit"), {*tmp_path.iterdir()}
    error = gateway(command, status=1)
    assert REFUSED[command] in error
    assert "\n" not in error
    assert gateway("log --audit") == before
    assert {*tmp_path.iterdir()} == files


def test_a_user_whose_last_day_is_over_needs_another_date(gateway: Gateway, tmp_path: Path) -> None:
    gateway("user set alice --expires 2020-12-31")
    assert "; but alice is expired" in gateway("test alice 10.50.1.5:443/tcp", as_json=False)
    database = Database(tmp_path / "gateway" / "gateway.db", tmp_path / "gateway.key")
    with database.change("gateway") as change:
        users.expire(change, 1.7e9)
    assert "2020-12-31 (expired)" in gateway("user list", as_json=False)
    assert "enabled, but expired: `wgpy gateway user set alice --expires" in gateway("user enable alice", as_json=False)
    assert gateway("user set alice --expires 2999-12-31")["expired"] is False


@pytest.mark.parametrize(
    ("words", "directory"),
    [
        ("--directory here user list", "here"),
        ("user list --directory here", "here"),
        ("--directory there --key k user list --directory here", "here"),
        ("user list", "set"),
    ],
)
def test_the_directory_may_stand_before_the_command_or_after_it(
    words: str, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WGPY_GATEWAY", "set")
    found = parser().parse_args(["gateway", *words.split()])
    assert found.directory == Path(directory)
    assert found.key == Path("k" if "--key" in words else common.KEY)


def test_a_gateway_is_changed_listed_and_restored(gateway: Gateway) -> None:
    gateway("backup before.db")
    gateway("user set alice --expires never")
    assert gateway("user list") == [User(name="alice", groups=frozenset({"staff"})).json()]
    gateway("device add phone --user alice")
    gateway("device disable phone")
    assert gateway("device sign-in phone")["signed_in_at"] > 0
    gateway("endpoint set --session-max 8h --idle-max 30m --sign-in --data-plane wgpy")
    assert gateway("endpoint show")["session_max"] == 8 * 3600
    gateway("rule remove web")
    gateway("route remove 10.50.0.0/16")
    gateway("user remove alice")
    gateway("group remove staff")
    for kind in ("user", "group", "device", "route", "rule", "session"):
        assert gateway(f"{kind} list") == []
    assert gateway("log") == []
    text = gateway("log --audit", as_json=False)
    assert "session_max: 86400 -> 28800, idle_max: 0 -> 1800, sign_in: False -> True, data_plane: auto -> wgpy" in text
    gateway("token add ci --scope read")
    assert gateway("restore before.db") == {"file": "before.db", "revoked_tokens": [], "back": ["user alice"]}
    assert gateway("token list") == []
    assert [rule["destination"] for rule in gateway("rule list")] == ["10.50.1.0/24:443/tcp"]
    assert gateway("user list", as_json=False).splitlines() == [
        "USER   SOURCE  GROUPS  ENABLED  EXPIRES",
        "alice  local   staff   yes      2030-12-31",
    ]


OTHER = """[Interface]
PrivateKey = {key}
Address = 10.99.0.1/24
ListenPort = 51000

[Peer]
PublicKey = {bob}

# Client: bob's phone (5f0c)
[Peer]
PublicKey = {bob}
PresharedKey = {psk}
AllowedIPs = 10.99.0.40/32, fd00:99::40/128

[Peer]
PublicKey = {other}
AllowedIPs = {allowed}
"""


def test_import_takes_over_the_clients_of_another_gateways_file(gateway: Gateway, tmp_path: Path) -> None:
    keys = {name: PrivateKey.generate() for name in ("key", "bob", "other")}
    texts = {"key": keys["key"].base64(), **{name: keys[name].public_key.base64() for name in ("bob", "other")}}
    psk = PresharedKey.generate()
    conf = tmp_path / "wg0.conf"
    conf.write_text(OTHER.format(**texts, psk=psk.base64(), allowed="192.168.0.0/16"))
    before = gateway("export")
    error = gateway("import wg0.conf --group staff", status=1)
    assert "wg0.conf: peer peer-2: AllowedIPs 192.168.0.0/16 is a network" in error
    assert "nothing was changed" in error
    assert gateway("export") == before
    conf.write_text(OTHER.format(**texts, psk=psk.base64(), allowed="10.99.0.41/32"))
    assert gateway("import wg0.conf --group staff")["devices"] == ["bob-s-phone", "peer-2"]
    found = gateway("export")
    assert found["endpoint"]["port"] == 51000
    assert [device["addresses"] for device in found["devices"]] == [
        ["10.99.0.40", "fd00:99::40"],
        ["10.99.0.41", "fd00:99::2"],
    ]
    assert [user["groups"] for user in found["users"]] == [["staff"]] * 3
    for secret in (keys["key"].base64(), psk.base64()):
        assert secret not in json.dumps(found)
    policy, _ = state.read(Database(tmp_path / "gateway" / "gateway.db", tmp_path / "gateway.key"))
    assert policy.private_key == keys["key"]
    assert policy.preshared_keys[keys["bob"].public_key] == psk
    change = policy.change_of(DeviceStatus())
    assert change
    device = Device(random=os.urandom, wall_clock=lambda: 0)
    device.configure(change, 0.0)
    assert policy.change_of(device.status()) is None


def test_a_backup_and_its_key_make_the_gateway_anew(gateway: Gateway, tmp_path: Path) -> None:
    before = gateway("export")
    gateway("backup before.db")
    shutil.rmtree(tmp_path / "gateway")
    gateway("restore before.db")
    assert gateway("export") == before


@pytest.mark.parametrize("has_database", [False, True])
def test_init_goes_on_where_it_was_killed(has_database: bool, gateway: Gateway, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "gateway")
    if has_database:
        (tmp_path / "gateway").mkdir()
        (tmp_path / "gateway" / "gateway.db").touch(mode=0o600)
    gateway("init --host vpn.example.org --pool 10.99.0.0/24")
    assert gateway("endpoint show")["host"] == "vpn.example.org"
    assert "there is one already" in gateway("init --host vpn.example.org --pool 10.99.0.0/24", status=1)


def test_status_reports_a_gateway_that_does_not_run(gateway: Gateway) -> None:
    status = gateway("status", status=1)
    assert (status["running"], status["sessions"], status["users"], status["rules"]) == (False, 0, 1, 1)
    assert (status["healthy"], status["why_not"]) == (False, "`wgpy gateway run` is not running")


def test_status_says_why_a_gateway_that_runs_is_not_healthy(gateway: Gateway, tmp_path: Path) -> None:
    with Database(tmp_path / "gateway" / "gateway.db", tmp_path / "gateway.key").running() as tell:
        tell("nft: no memory, and more")
        tell("nft: no memory")
        status = gateway("status", status=1)
        assert (status["running"], status["healthy"], status["why_not"]) == (True, False, "nft: no memory")
        tell("")
        why = gateway("status", status=1, as_json=False)
        assert "the interface wg0 is missing" in why


def test_without_a_gateway_a_command_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WGPY_GATEWAY", str(tmp_path))
    assert main(["gateway", "user", "list"]) == 1
    assert "there is no gateway yet; `wgpy gateway init` makes one" in capsys.readouterr().err


def test_without_its_libraries_it_says_what_to_install(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgpy.gateway.cli.common.find_spec", lambda name: None)
    assert "pip install 'wgpy[gateway]'" in gateway("user list", status=1)


def test_no_command_imports_its_libraries_before_it_says_that_they_are_missing() -> None:
    commands = ["init --host a.b --pool 10.99.0.0/24", "export", "group list", "user list", "endpoint show", "log"]
    source = f"from wgpy.cli import main\nfor command in {commands}: main(['gateway', *command.split()])"
    path = ":".join(each for each in sys.path if "site-packages" not in each)
    environment = {**os.environ, "PYTHONPATH": f"{Path(wgpy.__file__).parent.parent}:{path}"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", source], env=environment, capture_output=True, text=True, check=False
    )
    assert [line.partition(": ")[2].partition(":")[0] for line in done.stderr.splitlines()] == [
        "wgpy gateway needs sqlalchemy"
    ] * len(commands)


def test_a_directory_is_added_changed_listed_and_removed(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret\n")
    oidc = "oidc corp --issuer https://id.example.org --client-id vpn --client-secret-file secret"
    made = gateway(f"directory add {oidc} --group vpn-users=staff --grace 2h --require hd=example.org")
    assert made == gateway("directory show corp")
    assert (made["grace"], made["groups"]) == (7200, {"names": {"vpn-users": "staff"}, "prefix": None})
    assert made["settings"]["require"] == {"hd": "example.org"}
    changed = gateway("directory set oidc corp --name-claim email --all-groups")
    assert changed["settings"] == {**made["settings"], "name_claim": "email"}
    assert changed["groups"] == {"names": {"vpn-users": "staff"}, "prefix": ""}
    assert "https://id.example.org" in gateway("directory list", as_json=False)
    assert "a secret" not in gateway("directory show corp", as_json=False) + gateway("log --audit", as_json=False)
    database = Database(tmp_path / "gateway" / "gateway.db", tmp_path / "gateway.key")
    with database.read() as connection:
        assert directories.secret(connection, database.vault, "corp") == b"a secret"
    database.close()
    assert gateway("directory remove corp") == {"name": "corp", "users": []}


def test_a_directory_is_asked_whether_it_can_be_used(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr("wgpy.gateway.identity.directory.client", fake.client)
    gateway(f"directory add oidc corp --issuer {ISSUER} --client-id vpn")
    assert gateway("directory check corp")["redirect_uri"] == "set the endpoint's --url first"
    gateway("endpoint set --url https://vpn.example.org")
    found = gateway("directory check corp")
    assert (found["issuer"], found["keys"]) == (ISSUER, 1)
    assert found["redirect_uri"] == "https://vpn.example.org/sign-in/directory/corp/callback"
    fake.document = {"issuer": "https://evil.example"}
    assert "calls itself 'https://evil.example'" in gateway("directory check corp", status=1)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("add oidc corp --client-id vpn", "directory: --issuer is missing; `-h` says what it is"),
        (
            "add oidc corp --issuer http://id.example.org --client-id vpn",
            "expected an address that begins with https://",
        ),
        ("add oidc corp --issuer https://id.example.org --client-id vpn --group staff", "two names"),
        ("add oidc corp --issuer https://id.example.org --client-id vpn --group a=stuff", "did you mean staff?"),
        ("add oidc corp --issuer https://id.example.org --client-id vpn --ca gateway.key", "certificates in PEM"),
        (
            "add oidc corp --issuer https://id.example.org --client-id vpn --client-secret-file none",
            "No such file",
        ),
        ("add oidc corp --issuer https://id.example.org --client-id vpn --all-groups --group-prefix x", "one of them"),
        ("add oidc local --issuer https://id.example.org --client-id vpn", "choose another name"),
        ("show corp", "directory 'corp': there is none of that name"),
        ("remove corp", "directory 'corp': there is none of that name"),
    ],
)
def test_a_mistake_in_a_directory_is_one_line_and_nothing_is_changed(gateway: Gateway, command: str, why: str) -> None:
    assert why in gateway(f"directory {command}", status=1)
    assert gateway("directory list") == []


def test_help_loads_only_what_it_needs() -> None:
    program = "import sys; from wgpy.cli import main\ntry: main(['gateway', '-h'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    loaded = {*done.stdout.splitlines()[-1].split()}
    assert "wgpy.gateway.cli.enrol" in loaded
    assert not loaded & {"asyncio", "cryptography", "email", "http.client", "sqlalchemy", "ssl", "wgpy.config.wgquick"}


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        ("group list -h", {"group"}),
        ("--key k group list -h", {*OBJECTS}),
        ("grup list", {*OBJECTS}),  # so that the error names all
        ("demo -h", {*OBJECTS}),
    ],
)
def test_a_command_loads_no_other_kind_of_object(command: str, kinds: set[str]) -> None:
    program = "import sys; from wgpy.cli import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    words = [sys.executable, "-c", program, "gateway", *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert {name for name in OBJECTS if f"wgpy.gateway.cli.{name}" in done.stdout.split()} == kinds


def test_lists_of_revoked_certificates_are_copied_from_pem_and_from_der(gateway: Gateway, tmp_path: Path) -> None:
    root = Authority.root(tmp_path / "ca", "Example Root")
    crl = root.crl(tmp_path / "list.crl")
    der = tmp_path / "list.der"
    subprocess.run(["openssl", "crl", "-in", str(crl), "-outform", "DER", "-out", str(der)], check=True)
    ca = f"certificate set --ca {root.signed.certificate}"
    made = gateway(f"{ca} --crl-copy list.crl")
    assert made["crl"].startswith("-----BEGIN X509 CRL-----")
    assert gateway("certificate set --crl-copy list.der")["crl"] == made["crl"]
    shown = gateway("certificate show", as_json=False)
    assert [part in shown for part in ("in the database", "CN=Example Root", "accepted")] == [True] * 3
    for command, why in (
        ("certificate set --crl-copy gateway.key", "gateway.key: expected lists of revoked certificates"),
        ("certificate set --crl-copy none", "No such file"),
        ("certificate set --ca gateway.key", "ca: expected certificates in PEM"),
        (f"certificate set --ca {root.signed.key}", "ca: there is a private key"),
    ):
        assert why in gateway(command, status=1)
    assert gateway("certificate show") == made
