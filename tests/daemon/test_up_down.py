"""`wgpy up`, `run` and `down` on a real TUN: what they set and print, and that they leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace, is_settled
from tests.support.peers import WGPY, fresh_name, wait_for
from wgpy.daemon.stop import log_path
from wgpy.daemon.uapi_client import serving_pid, socket_path
from wgpy.keys import PrivateKey
from wgpy.system.priority import NICE

pytestmark = pytest.mark.root

KEY = PrivateKey(b"k" * 32)
PEER = PrivateKey(b"p" * 32).public_key.base64()


class Host:
    """A namespace with a default route, and the file of one interface."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.name = fresh_name()
        self.path = directory / f"{self.name}.conf"
        self.path.touch(mode=0o600)
        namespace.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far-end")
        namespace.run("ip", "link", "set", "far-end", "up")
        namespace.run("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
        namespace.run("ip", "link", "set", "uplink", "mtu", "1400", "up")
        namespace.run("ip", "route", "add", "default", "via", "192.0.2.254")

    def write(self, interface: str = "", peer: str = "AllowedIPs = 10.9.0.0/16\nEndpoint = 192.0.2.2:51820") -> None:
        self.path.write_text(
            f"[Interface]\nPrivateKey = {KEY.base64()}\nAddress = 10.9.0.1/24\n{interface}\n"
            f"[Peer]\nPublicKey = {PEER}\n{peer}\n"
        )

    def wgpy(self, *arguments: str) -> str:
        return self.namespace.run(forked_wgpy(), *arguments)

    def up(self) -> str:
        return self.wgpy("up", str(self.path))

    def refused(self, *arguments: str) -> str:
        """What a command prints that fails with status 1; checks that it is no traceback."""
        command = (forked_wgpy(), *(arguments or ("up", str(self.path))))
        said = self.namespace.run("bash", "-c", '"$@"; echo "status $?"', "bash", *command, check=False)
        assert said.endswith("status 1\n"), said
        assert "Traceback" not in said
        return said

    def surroundings(self) -> str:
        """Everything that `up` changes, except a sysctl that wg-quick leaves set, too."""
        shown = ["link", "address", "route show table all", "-6 route show table all", "rule", "-6 rule"]
        commands = [*(f"ip {what}" for what in shown), "ss -Hlun", "nft list ruleset"]
        said = "\n".join(self.namespace.run(*command.split()) for command in commands)
        sockets = sorted(path.name for path in Path("/var/run/wireguard").glob(f"{self.name}*"))
        return re.sub(r"valid_lft \S+ preferred_lft \S+", "", said) + str(sockets)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Namespace() as namespace:
        host = Host(namespace, tmp_path)
        assert wait_for(lambda: is_settled(namespace))
        yield host
        namespace.run(forked_wgpy(), "down", host.name, check=False)


def test_addresses_mtu_and_routes_are_set_and_undone(host: Host) -> None:
    before = host.surroundings()
    host.write("Address = fd09::1/64", "AllowedIPs = 10.9.0.0/16, 172.16.0.0/12, fd09::/64\nEndpoint = 192.0.2.2:51820")
    host.up()
    link = host.namespace.run("ip", "-o", "link", "show", host.name)
    assert "mtu 1320" in link  # 1400 on the way to the endpoint, less 80
    assert "POINTOPOINT" in link
    addresses = host.namespace.run("ip", "-o", "address", "show", "dev", host.name)
    assert "10.9.0.1/24" in addresses
    assert "fd09::1/64" in addresses
    routes = host.namespace.run("ip", "route", "show", "dev", host.name)
    assert "172.16.0.0/12" in routes
    assert "10.9.0.0/16" in routes
    host.wgpy("down", host.name)
    assert host.surroundings() == before
    assert not log_path(host.name).exists()


def test_a_default_route_uses_a_mark_and_rules_that_down_removes(host: Host) -> None:
    before = host.surroundings()
    host.write("", "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.2:51820")
    host.up()
    for family in ("-4", "-6"):
        assert "not from all fwmark 0xca6c lookup 51820" in host.namespace.run("ip", family, "rule")
    for family, through, own in (("-4", "198.51.100.1", "192.0.2.2"), ("-6", "2001:db8::1", None)):
        assert f"dev {host.name}" in host.namespace.run("ip", family, "route", "get", through)
        if own:
            assert "dev uplink" in host.namespace.run("ip", family, "route", "get", own, "mark", "51820")
    assert "fwmark: 0xca6c" in host.wgpy("show", host.name)
    host.wgpy("down", host.name)
    assert host.surroundings() == before


def test_a_table_or_mark_from_the_file_is_used(host: Host) -> None:
    host.write("Table = 1234\nFwMark = 0x77\nMTU = 1280\nListenPort = 5555")
    host.up()
    assert "10.9.0.0/16" in host.namespace.run("ip", "route", "show", "table", "1234")
    assert "mtu 1280" in host.namespace.run("ip", "link", "show", host.name)
    assert ":5555" in host.namespace.run("ss", "-Hlun")
    host.wgpy("down", host.name)
    host.write("Table = default")
    host.up()
    assert "10.9.0.0/16" in host.namespace.run("ip", "route", "show", "table", "253")
    host.wgpy("down", host.name)
    host.write("Table = nonesuch")
    assert "nonesuch" in host.refused()
    host.write("Table = off")
    host.up()
    assert "10.9.0.0/16" not in host.namespace.run("ip", "route", "show", "table", "all")


def test_hooks_run_in_order_with_the_interfaces_name(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "hooks"
    hooks = [f"{key} = echo {key} %i $(ip link show %i >/dev/null 2>&1 && echo there) >> {log} # {key}"
             for key in ("PreUp", "PostUp", "PreDown", "PostDown")]  # fmt: skip
    host.write("\n".join([*hooks, f"PostUp = echo second >> {log}"]))
    host.up()
    host.wgpy("down", host.name)
    n = host.name
    expected = [f"PreUp {n} there", f"PostUp {n} there", "second", f"PreDown {n} there", f"PostDown {n}"]
    assert log.read_text().splitlines() == expected


def test_a_hook_may_query_the_daemon_that_runs_it(host: Host, tmp_path: Path) -> None:
    ask = f"wg show %i listen-port >> {tmp_path}/port"
    host.write(f"PostUp = {ask}\nPreDown = {ask}\nListenPort = 5556")
    host.up()
    host.wgpy("down", host.name)
    assert (tmp_path / "port").read_text() == "5556\n5556\n"


def test_what_a_hook_writes_is_world_readable_whatever_the_umask(host: Host, tmp_path: Path) -> None:
    """The units have umask 0077: a PostUp that writes /etc/resolv.conf with it would break DNS for other users."""
    host.write("".join(f"{key} = touch {tmp_path}/{key}\n" for key in ("PreUp", "PostUp", "PreDown", "PostDown")))
    host.namespace.run("bash", "-c", 'umask 077; exec "$@"', "bash", *WGPY, "up", str(host.path))
    host.wgpy("down", host.name)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("P*")}
    assert modes == dict.fromkeys(("PreUp", "PostUp", "PreDown", "PostDown"), 0o644)


def test_the_daemon_has_a_higher_priority_and_its_hooks_have_not(host: Host, tmp_path: Path) -> None:
    """Nor has what a hook leaves running, also where Linux groups processes by session."""
    look = "{ nice; cat /proc/self/autogroup; }"
    host.write("".join(f"{key} = {look} >> {tmp_path}/{key}\n" for key in ("PreUp", "PostUp", "PreDown", "PostDown")))
    host.up()
    daemon = serving_pid(host.name)
    assert os.getpriority(os.PRIO_PROCESS, daemon) == NICE
    group = Path(f"/proc/{daemon}/autogroup")
    assert wait_for(lambda: not group.exists() or group.read_text().endswith(f" nice {NICE}\n"))
    host.wgpy("down", host.name)
    seen = {path.name: path.read_text() for path in tmp_path.glob("P*")}
    assert seen.keys() == {"PreUp", "PostUp", "PreDown", "PostDown"}
    assert {re.sub(r"/autogroup-\d+ nice", "group", found) for found in seen.values()} <= {"0\ngroup 0\n", "0\n"}


@pytest.mark.parametrize(
    "interface",
    [
        "PostUp = false",
        "PreUp = exit 3",
        "PreUp = ip address add 10.9.0.1/24 dev %i\nPostUp = true",
        "Table = 9\nDNS = 1.1.1.1\nPostUp = false",
    ],
)
def test_a_failed_up_is_undone(host: Host, interface: str, tmp_path: Path) -> None:
    before = host.surroundings()
    host.write(f"{interface}\nPostDown = touch {tmp_path}/undone", "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.2:1")
    said = host.refused()
    assert f"wgpy: {host.name}: " in said
    assert host.surroundings() == before


def test_deleting_the_interface_ends_the_daemon_and_removes_its_rules(host: Host) -> None:
    before = host.surroundings()
    host.write("", "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.2:51820")
    host.up()
    host.namespace.run("ip", "link", "delete", host.name)
    assert wait_for(lambda: not Path(f"/var/run/wireguard/{host.name}.sock").exists())
    assert wait_for(lambda: "lookup 51820" not in host.namespace.run("ip", "rule"))
    assert host.surroundings() == before
    assert f"{host.name}" in host.refused("down", host.name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_is_undone(host: Host, tmp_path: Path, number: signal.Signals) -> None:
    before = host.surroundings()
    host.write(f"PreUp = touch {tmp_path}/begun; sleep 1\nPostDown = touch {tmp_path}/undone")
    process = host.namespace.popen(*WGPY, "up", str(host.path), stderr=subprocess.PIPE)
    assert wait_for((tmp_path / "begun").exists)
    process.send_signal(number)
    assert process.wait(60) == 130
    assert (tmp_path / "undone").exists()
    assert host.surroundings() == before


@pytest.mark.parametrize("endpoint", ["192.0.2.2:51820", "no-such-host.invalid:51820"])
def test_the_steps_of_a_killed_up_are_undone(host: Host, tmp_path: Path, endpoint: str) -> None:
    """It is stopped while it takes its steps, and while it looks up a name that does not exist."""
    before = host.surroundings()
    host.write(f"PreUp = touch {tmp_path}/begun; sleep 1", f"AllowedIPs = 0.0.0.0/0\nEndpoint = {endpoint}")
    process = host.namespace.popen(*WGPY, "up", str(host.path), stderr=subprocess.PIPE)
    assert wait_for(
        lambda: socket_path(host.name).exists() and ((tmp_path / "begun").exists() or "no-such" in endpoint)
    )
    process.kill()
    assert wait_for(lambda: not socket_path(host.name).exists())
    assert wait_for(lambda: host.surroundings() == before)
    assert not log_path(host.name).exists()


def test_a_daemon_under_nohup_ignores_sighup(host: Host, tmp_path: Path) -> None:
    host.write(f"PreUp = touch {tmp_path}/begun; sleep 1")
    process = host.namespace.popen("nohup", *WGPY, "up", str(host.path), stderr=subprocess.DEVNULL)
    assert wait_for((tmp_path / "begun").exists)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    assert host.name in host.wgpy("show")


def test_down_says_that_it_waits_and_how_to_wake_a_stopped_daemon(host: Host) -> None:
    host.write()
    host.up()
    pid = serving_pid(host.name)
    os.kill(pid, signal.SIGSTOP)
    process = host.namespace.popen(*WGPY, "down", host.name, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.readline()
    assert said == (
        f"[#] wait for process {pid} to end, 60 s at most: it is suspended; resume it with `kill -CONT {pid}`\n"
    )
    os.kill(pid, signal.SIGCONT)
    assert process.wait(60) == 0
    assert host.name not in host.namespace.run("ip", "-o", "link")


def test_down_works_with_a_descriptor_of_any_number(host: Host) -> None:
    host.write()
    host.up()
    lines = "import os, sys\nfor _ in range(1100): os.dup(2)\nfrom wgpy.daemon.stop import stop; stop(sys.argv[1])"
    host.namespace.run("prlimit", "--nofile=2048:2048", WGPY[0], "-c", lines, host.name)
    assert host.name not in host.namespace.run("ip", "-o", "link")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_daemon_that_waits_for_a_name_server_can_be_stopped(host: Host, number: signal.Signals) -> None:
    before = host.surroundings()
    host.write("", "AllowedIPs = 0.0.0.0/0\nEndpoint = no-such-host.invalid:51820")
    process = host.namespace.popen(*WGPY, "run", str(host.path), stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert "trying again" in process.stderr.readline()
    process.send_signal(number)
    assert process.wait(60) == 0
    assert host.surroundings() == before


def test_the_scope_of_a_link_local_endpoint_is_kept(host: Host) -> None:
    host.write("", "AllowedIPs = 10.9.0.0/16\nEndpoint = [fe80::1%uplink]:51820")
    host.up()
    assert "endpoint: [fe80::1%uplink]:51820" in host.wgpy("show", host.name)
    assert "[fe80::1%uplink]:51820" in host.namespace.run("wg", "show", host.name, "endpoints")


def test_up_works_with_closed_standard_streams(host: Host) -> None:
    host.write("ListenPort = 5560")
    host.namespace.run("bash", "-c", f"{' '.join(WGPY)} up {host.path} <&- >&- 2>&-")
    assert "5560" in host.wgpy("show", host.name)
    host.wgpy("down", host.name)
    assert not log_path(host.name).exists()


def test_up_prints_the_warnings_about_the_file(host: Host) -> None:
    host.write("", "AllowedIPs = 10.9.0.2/16\nEndpoint = 192.0.2.2:51820")
    assert "AllowedIPs: 10.9.0.2/16 has host bits set" in host.up()


def test_a_second_up_is_refused_and_changes_nothing(host: Host) -> None:
    host.write()
    host.up()
    assert "already exists" in host.refused()
    assert host.name in host.wgpy("show")


@pytest.mark.parametrize(("mode", "owner"), [(0o620, 0), (0o602, 0), (0o600, 65534)])
def test_hooks_in_a_file_that_others_may_write_are_refused(host: Host, tmp_path: Path, mode: int, owner: int) -> None:
    host.write(f"PreUp = touch {tmp_path}/ran")
    host.path.chmod(mode)
    os.chown(host.path, owner, 0)
    for verb in ("up", "run"):
        assert f"{host.path}: has hooks, and users other than root" in host.refused(verb, str(host.path))
    assert not (tmp_path / "ran").exists()
    host.write("ListenPort = 5559")
    host.up()


def test_a_port_in_use_is_reported_with_its_number(host: Host) -> None:
    import socket

    before = host.surroundings()

    def occupied() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 5557))
            done = subprocess.run([*WGPY, "up", str(host.path)], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert re.fullmatch(rf"wgpy: {host.name}: .*5557.*in use.*\n", done.stderr), done.stderr

    host.write("ListenPort = 5557")
    host.namespace.call(occupied)
    assert host.surroundings() == before


def test_without_permission_up_gives_one_line_with_the_remedy(host: Host) -> None:
    host.write()
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # root in name only, who may read our files
    for verb in ("up", "run"):
        said = host.namespace.run(*powerless, *WGPY, verb, str(host.path), check=False)
        assert said.count("\n") == 1, said
        assert "CAP_NET_ADMIN" in said

    host.up()
    socket_path(host.name).chmod(0)
    said = host.namespace.run(*powerless, *WGPY, "down", host.name, check=False)
    assert said == f"wgpy: {socket_path(host.name)}: Permission denied: run as root\n"
    socket_path(host.name).chmod(0o700)
    host.path.chmod(0)
    said = host.namespace.run(*powerless, *WGPY, "apply", str(host.path), check=False)
    assert said == (
        f"wgpy: {host.path}: Permission denied: root lacks CAP_DAC_OVERRIDE here, as in wgpy@.service: "
        f"chown root {host.path}; chmod 600 {host.path}\n"
    )
    host.path.chmod(0o600)


def test_run_stays_in_the_foreground_and_ends_on_a_signal(host: Host) -> None:
    before = host.surroundings()
    host.write("", "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.2:51820")
    for number in (signal.SIGTERM, signal.SIGINT):
        process = host.namespace.popen(*WGPY, "run", str(host.path), stderr=subprocess.PIPE)
        assert wait_for(lambda: "lookup 51820" in host.namespace.run("ip", "rule"))
        assert host.name in host.wgpy("show")
        process.send_signal(number)
        assert process.wait(60) == 0
        assert host.surroundings() == before


def test_the_socket_of_a_killed_daemon_does_not_block_the_next_up(host: Host) -> None:
    host.write()
    host.up()

    os.kill(serving_pid(host.name), signal.SIGKILL)
    assert wait_for(lambda: host.name not in host.namespace.run("ip", "-o", "link"))
    host.up()
    assert host.name in host.wgpy("show")


def test_no_secret_is_in_the_arguments_or_the_log(host: Host) -> None:

    host.write()
    host.namespace.run(*WGPY, "up", str(host.path))
    pid = serving_pid(host.name)
    assert KEY.base64().encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert KEY.base64() not in log_path(host.name).read_text()
    assert log_path(host.name).stat().st_mode & 0o777 == 0o600


def test_the_log_is_opened_for_appending_so_that_copytruncate_leaves_no_hole(host: Host) -> None:
    host.write()
    host.up()
    pid = serving_pid(host.name)
    for descriptor in (1, 2):
        said = re.search(r"^flags:\s+(\d+)$", Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(), re.MULTILINE)
        assert said is not None
        assert int(said[1], 8) & os.O_APPEND


def test_show_counts_drops_and_stock_wg_can_still_read_the_status(host: Host) -> None:
    host.write("ListenPort = 5558")
    host.up()
    host.namespace.run("bash", "-c", "for n in 1 2 3; do echo nonsense > /dev/udp/127.0.0.1/5558; done")
    assert wait_for(lambda: '"malformed": 3' in host.wgpy("show", host.name, "--json"))
    assert f"peer: {PEER}" in host.namespace.run("wg", "show", host.name)


def test_garbage_on_the_control_socket_is_refused_and_changes_nothing(host: Host) -> None:
    import socket

    host.write()
    host.up()
    before = host.namespace.run("wg", "showconf", host.name)
    for request in (b"", b"\n", b"get=2\n\n", b"set=1\nnonsense\n\n", b"set=1\nlisten_port=99999\n\n", b"\xff" * 100,
                    b"set=1\nreplace_peers=true\npublic_key=zz\n\n", b"set=1\nfwmark=1", b"x" * 200_000):  # fmt: skip
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(f"/var/run/wireguard/{host.name}.sock")
            try:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
            except (ConnectionResetError, BrokenPipeError):
                pass
    assert host.namespace.run("wg", "showconf", host.name) == before


def test_wg_changes_a_running_interface(host: Host) -> None:
    host.write()
    host.up()
    run, other = host.namespace.run, PrivateKey(b"o" * 32).public_key.base64()
    run("wg", "set", host.name, "listen-port", "6001", "fwmark", "0x5", "peer", other, "allowed-ips", "10.7.0.0/16",
        "endpoint", "[2001:db8::5]:7", "persistent-keepalive", "30")  # fmt: skip
    said = run("wg", "showconf", host.name)
    for line in ("ListenPort = 6001", "FwMark = 0x5", f"PublicKey = {other}", "Endpoint = [2001:db8::5]:7"):
        assert line in said
    assert ":6001" in run("ss", "-Hlun")
    run("wg", "set", host.name, "peer", other, "remove")
    assert other not in run("wg", "show", host.name, "peers")
    assert "Unable to modify interface" in run(
        "wg", "set", host.name, "fwmark", "1", "listen-port", "53000", check=False
    ) or ":53000" in run("ss", "-Hlun")
