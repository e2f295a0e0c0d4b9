"""`wgpy exec`, `proxy`, `forward` and `stdio` as an unprivileged user, to a server behind Debian's wireguard-go."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.namespace.conftest import NETWORK, PORT, Server
from tests.support.nobody import NOBODY, as_nobody, let_pass
from tests.support.peers import capture
from wgpy.cli.rootless import _NETWORKS
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

WGPY = (sys.executable, "-m", "wgpy")
WEB = 80  # where a web server of the far end serves its directory


@pytest.fixture
def conf(cable: Cable, server: Server) -> Path:
    """The client's file, with the far end as its name server, readable to it alone."""
    path = cable.directory / "wg0.conf"
    path.touch(mode=0o600)
    path.write_text(server.text.replace("Address", f"DNS = {server.address}, corp.test\nAddress"))
    os.chown(path, NOBODY, NOBODY)
    let_pass(cable.directory)
    return path


@pytest.fixture
def web(cable: Cable, server: Server) -> str:
    """A page in the tunnel, under web.corp.test."""
    site = cable.directory / "site"
    site.mkdir()
    (site / "page").write_text("from the other side\n")
    handler = f"functools.partial(http.server.SimpleHTTPRequestHandler, directory={str(site)!r})"
    serve = f"import functools, http.server; s = http.server.HTTPServer(({server.address!r}, {WEB}), {handler})"
    server.run_beside(sys.executable, "-c", f"{serve}; print('ready', flush=True); s.serve_forever()")
    names = (f"web.corp.test={server.address}", f"web.corp.test={server.side.inner6}")
    server.run_beside(sys.executable, "-m", "wgpy.labs.nameserver", server.address, *names)
    return "from the other side\n"


def as_client(server: Server, body: Callable[[], None]) -> None:
    async def main() -> None:
        body()

    as_nobody(server.client, main)


def chosen() -> list[str]:
    """The network that a test has, if it has one."""
    return ["--network", os.environ[NETWORK]] if NETWORK in os.environ else []


def said_of_network() -> str:
    return f"network: {_NETWORKS[os.environ[NETWORK]]}"


def wgpy(*arguments: str | Path, stdin: bytes = b"", timeout: float = 30) -> subprocess.CompletedProcess[bytes]:
    command = [*WGPY, *map(str, arguments), *chosen()] if arguments[0] != "exec" else [*WGPY, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)


@contextmanager
def serving(*arguments: str | Path) -> Iterator[list[str]]:
    """`wgpy` with these arguments, once it is ready: what it said."""
    command = [*WGPY, *map(str, arguments), *chosen()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    while (line := process.stderr.readline()) != "ready\n":
        assert line, f"{said}, and no more"
        said.append(line.rstrip("\n"))
    yield said
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=10)
    assert (process.returncode, rest) == (0, "")


def curl(*arguments: str) -> str:
    return subprocess.run(["curl", "-sS", "-m", "10", *arguments], capture_output=True, text=True, check=False).stdout


def test_exec_runs_a_program_that_uses_the_tunnels_names(server: Server, conf: Path, web: str) -> None:
    def body() -> None:
        for url in ("http://web.corp.test/page", "http://web/page", f"http://{server.address}/page"):
            done = wgpy("exec", conf, "--", "curl", "-sS", "-m", "10", url)
            assert (done.stdout.decode(), done.stderr, done.returncode) == (web, b"", 0)
        assert wgpy("exec", conf, "--", "ping", "-c1", "-W5", server.address).returncode == 0
        assert wgpy("exec", conf, "--", "id", "-u").stdout == b"%d\n" % NOBODY

    as_client(server, body)


def test_exec_passes_the_exit_status_and_the_streams_on(server: Server, conf: Path) -> None:
    def body() -> None:
        done = wgpy("exec", conf, "--", "sh", "-c", "cat; echo no >&2; exit 7", stdin=b"in and out")
        assert (done.stdout, done.stderr, done.returncode) == (b"in and out", b"no\n", 7)
        assert wgpy("exec", conf, "--", "sh", "-c", "kill -9 $$").returncode == 128 + 9
        missing = wgpy("exec", conf, "no-such-program")
        assert (missing.stderr, missing.returncode) == (b"wgpy: no-such-program: command not found\n", 127)
        assert wgpy("exec", conf, "/etc/passwd").returncode == 126

    as_client(server, body)


def test_exec_needs_no_writable_directory(server: Server, conf: Path) -> None:
    """As in a container with a read-only root."""
    read_only = """
mount --make-rprivate /
for place in $(findmnt -rno TARGET) / /tmp /var/tmp /usr/tmp; do
  case $place in /proc*|/sys*|/dev*) continue ;; esac
  [ -d $place ] && mount --bind $place $place && mount -o remount,bind,ro $place
done 2>/dev/null
cd /
touch /tmp/x /var/tmp/x /run/x /x 2>/dev/null; ls /tmp/x /var/tmp/x /run/x /x 2>/dev/null
exec "$@"
"""
    command = (*WGPY, "exec", str(conf), "cat", "/etc/resolv.conf")
    said = server.client.run("unshare", "-m", "sh", "-c", read_only, "sh", *command)
    assert said == f"nameserver {server.address}\nsearch corp.test\n"


def test_exec_passes_on_no_descriptors_but_the_standard_streams(server: Server, conf: Path) -> None:
    def body() -> None:
        done = wgpy("exec", conf, "--", "sh", "-c", "exec ls /proc/self/fd")
        assert done.stdout.split() == [b"0", b"1", b"2", b"3"]  # the last is the directory

    as_client(server, body)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_exec_passes_signals_on(server: Server, conf: Path, number: signal.Signals) -> None:
    def body() -> None:
        name = number.name.removeprefix("SIG")
        waits = f"trap 'echo got {name}; exit 3' {name}; echo ready; while :; do sleep 0.1; done"
        command = [*WGPY, "exec", str(conf), "--", "bash", "-c", waits]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=10)[0] == f"got {name}\n"
        assert process.returncode == 3

    as_client(server, body)


def test_exec_leaks_nothing_when_the_peer_never_answers(server: Server, conf: Path, web: str) -> None:
    """The peer never answers: names and addresses lead nowhere, not even to what the host could reach."""

    def body() -> None:
        text = conf.read_text()
        public = next(line for line in text.splitlines() if line.startswith("PublicKey"))
        conf.write_text(text.replace(public, f"PublicKey = {PrivateKey.generate().public_key.base64()}"))
        for url in ("http://web.corp.test/page", f"http://{server.side.outer}/", "http://127.0.0.1:631/"):
            done = wgpy("exec", conf, "--", "curl", "-sS", "-m", "2", url)
            assert done.stdout == b""
            assert done.returncode in (6, 7, 28)

    with capture(server.client, "veth0", "(ip and not icmp) or (ip6 and (tcp or udp))") as seen:
        as_client(server, body)
    assert [line for line in seen if f"{server.side.outer}.{server.side.port}:" not in line] == []


def test_exec_kills_its_program_if_it_is_killed(server: Server, conf: Path) -> None:
    def body() -> None:
        command = [*WGPY, "exec", str(conf), "--", "sh", "-c", "echo ready; exec sleep 1000"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.wait(10)
        assert process.stdout.read() == ""  # whoever else held it is gone

    as_client(server, body)


def test_wait_fails_when_nobody_answers(server: Server, conf: Path) -> None:
    def body() -> None:
        conf.write_text(conf.read_text().replace(f":{server.side.port}", ":9"))
        done = wgpy("exec", conf, "--wait", "0.5", "--", "echo", "never")
        assert (done.stdout, done.returncode) == (b"", 1)
        assert b"has not answered for 0.5 s: check the Endpoint" in done.stderr

    as_client(server, body)


@pytest.mark.usefixtures("network")
def test_proxies_resolve_names_through_the_tunnel(server: Server, conf: Path, web: str) -> None:
    def body() -> None:
        with serving("proxy", conf, "--socks", "1080", "--http", "127.0.0.1:3128") as said:
            assert said == [said_of_network(), "socks5 on 127.0.0.1:1080", "http on 127.0.0.1:3128"]
            url = "http://web.corp.test/page"
            assert curl("-x", "socks5h://127.0.0.1:1080", url) == web
            assert curl("-x", "http://127.0.0.1:3128", url) == web
            assert curl("-p", "-x", "http://127.0.0.1:3128", url) == web

    as_client(server, body)


@pytest.mark.usefixtures("network")
def test_socks_carries_udp_through_the_tunnel(server: Server, conf: Path) -> None:
    def body() -> None:
        there = b"\x00\x00\x00\x01" + socket.inet_aton(server.address) + PORT.to_bytes(2)
        with (
            serving("proxy", conf, "--socks", "1080"),
            socket.create_connection(("127.0.0.1", 1080), 10) as control,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            control.sendall(b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6))
            reply = b""
            while len(reply) < 12:
                reply += control.recv(64)
            sock.settimeout(10)
            sock.connect(("127.0.0.1", int.from_bytes(reply[10:12])))
            sock.send(there + b"hello")
            assert sock.recv(100) == there + b"hello"

    as_client(server, body)


@pytest.mark.usefixtures("network")
def test_a_wireproxy_file_is_served(server: Server, conf: Path, web: str) -> None:
    def body() -> None:
        with conf.open("a") as file:
            file.write("\n[Socks5]\nBindAddress = 127.0.0.1:1080\nUsername = me\nPassword = secret\n")
            file.write(f"\n[TCPClientTunnel]\nBindAddress = 127.0.0.1:8080\nTarget = {server.address}:{WEB}\n")
        with serving("proxy", conf) as said:
            assert said == [
                said_of_network(),
                "socks5 on 127.0.0.1:1080",
                f"tcp 127.0.0.1:8080 -> {server.address}:{WEB}",
            ]
            assert curl("-x", "socks5h://me:secret@127.0.0.1:1080", "http://web.corp.test/page") == web
            assert curl("-x", "socks5h://me:wrong@127.0.0.1:1080", "http://web.corp.test/page") == ""
            assert curl("http://127.0.0.1:8080/page") == web

    as_client(server, body)


@pytest.mark.usefixtures("network")
def test_forwards_work_in_both_directions(server: Server, conf: Path, web: str) -> None:
    """TCP and UDP in; and out, to a server on this host, asked by the far end."""

    def body() -> None:
        forwards = ("-L", f"8080:web:{WEB}", "-L", f"9999:{server.address}:{PORT}/udp", "-R", "8000:localhost:8080")
        with serving("forward", conf, *forwards) as said:
            assert said[-1] == "tcp [::]:8000 in the tunnel -> localhost:8080"
            assert curl("http://127.0.0.1:8080/page") == web
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.connect(("127.0.0.1", 9999))
                sock.send(b"hello")
                assert sock.recv(100) == b"hello"
            ready.touch()
            while not done.exists():
                pass

    for flag in (ready := conf.with_name("flags") / "ready", done := conf.with_name("flags") / "done"):
        flag.parent.mkdir(mode=0o777, exist_ok=True)
        flag.parent.chmod(0o777)
    fetch = f"until [ -e {ready} ]; do sleep 0.05; done; curl -sS -m 10 http://10.8.0.1:8000/page; touch {done}"
    visitor = server.side.namespace.popen("bash", "-c", fetch, stdout=subprocess.PIPE)
    as_client(server, body)
    assert visitor.communicate(timeout=10)[0] == web


@pytest.mark.usefixtures("network")
def test_a_port_in_use_gives_one_clear_line(server: Server, conf: Path) -> None:
    def body() -> None:
        with socket.create_server(("127.0.0.1", 1080)):
            done = wgpy("proxy", conf, "--socks", "1080")
        said = f"{said_of_network()}\nwgpy: cannot listen on 127.0.0.1:1080: Address already in use; ".encode()
        assert done.stderr.startswith(said)
        assert (done.stderr.count(b"\n"), done.returncode) == (2, 1)

    as_client(server, body)


@pytest.mark.usefixtures("network")
def test_stdio_connects_standard_input_and_output(server: Server, conf: Path, web: str) -> None:
    def body() -> None:
        done = wgpy("stdio", conf, f"web:{WEB}", stdin=b"GET /page HTTP/1.0\r\n\r\n")
        assert done.stdout.endswith(web.encode())
        assert (done.stderr, done.returncode) == (b"", 0)
        refused = wgpy("stdio", conf, f"{server.address}:9")
        said = f"wgpy: {server.address}:9: Connection refused\n".encode()
        assert (refused.stderr, refused.returncode) == (said, 1)
        unknown = wgpy("stdio", conf, "no-such.corp.test:9")
        assert unknown.returncode == 1
        assert unknown.stderr.startswith(b"wgpy: no-such.corp.test: None of DNS query names exist")

    as_client(server, body)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("proxy",), b"nothing to run: give --socks"),
        (("forward",), b"nothing to forward: give -L"),
        (("stdio",), b"no address to connect to: give HOST:PORT"),
        (("forward", "-L", "80"), b"expected [HOST:]PORT:HOST:PORT"),
    ],
)
def test_what_is_missing_is_reported(conf: Path, arguments: tuple[str, ...], said: bytes) -> None:
    done = wgpy(arguments[0], conf, *arguments[1:])
    assert said in done.stderr
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", ["nan", "-1", "0", "inf", "soon"])
def test_the_argument_of_wait_must_be_seconds(conf: Path, seconds: str) -> None:
    done = wgpy("stdio", conf, "10.8.0.2:1", f"--wait={seconds}")
    assert f"argument --wait: expected a number of seconds above 0, not '{seconds}'".encode() in done.stderr
    assert done.returncode == 2


def test_an_inaccessible_tun_device_is_named_with_the_remedy(server: Server, conf: Path) -> None:
    async def main() -> None:
        done = wgpy("exec", conf, "true")
        said = b"wgpy: /dev/net/tun is closed to you: sudo chmod 0666 /dev/net/tun, as udev does on most systems"
        said += b"; `wgpy proxy`, `forward` and `stdio` need none\n"
        assert (done.stderr, done.returncode) == (said, 1)

    as_nobody(server.client, main, tun_mode=0o600)


def test_iperf3_runs_in_a_rootless_tunnel(cable: Cable, server: Server, conf: Path) -> None:
    server.side.namespace.popen("iperf3", "-s", "-1", "-B", server.address, stdout=subprocess.DEVNULL)

    def body() -> None:
        command = ("iperf3", "-c", server.address, "-n", "50M", "--json")
        for _ in range(50):
            done = wgpy("exec", conf, "--", *command, timeout=60)
            if done.returncode == 0:
                break
        assert json.loads(done.stdout)["end"]["sum_sent"]["bytes"] >= 50_000_000

    as_client(server, body)
