"""`wgpy` in the place of `wg`: the same words, the same text and the same effects, on our daemon and wireguard-go."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name, wait_for
from wgpy.cli import main
from wgpy.keys import PresharedKey, PrivateKey

pytestmark = pytest.mark.root

KEY, PSK = PrivateKey(b"k" * 32), PresharedKey(b"s" * 32)
A, B, C = (PrivateKey(letter * 32).public_key.base64() for letter in (b"a", b"b", b"c"))
FULL = f"""[Interface]
PrivateKey = {KEY.base64()}
ListenPort = 7001
FwMark = 0x1f
[Peer]
PublicKey = {A}
PresharedKey = {PSK.base64()}
AllowedIPs = 10.1.0.0/16, fd01::/64, ::ffff:1.2.3.4/128
Endpoint = 192.0.2.1:1000
PersistentKeepalive = 25
[Peer]
PublicKey = {B}
Endpoint = [fe80::1%lo]:2000
[Peer]
PublicKey = {C}
AllowedIPs = 10.3.0.1
"""
SMALL = f"[Peer]\nPublicKey = {C}\nAllowedIPs = 10.1.0.0/16\nEndpoint = localhost:5\n"
PARAMETERS = [
    "public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys", "endpoints", "allowed-ips",
    "latest-handshakes", "transfer", "persistent-keepalive", "dump",
]  # fmt: skip


class Served:
    """A bare interface, and both programs to use on it."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace, self.directory = namespace, directory
        self.name = fresh_name()

    def run(self, program: str, *words: str, **options: Any) -> tuple[str, int]:
        """Both outputs, and the exit status, of `wg` or `wgpy`; the latter in this process unless there are options."""
        if program == "wgpy" and not options:
            with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
                status = main(list(words))
            return said.getvalue(), status
        command = (forked_wgpy() if program == "wgpy" else "wg", *words)
        text, _, end = self.namespace.run(
            "bash", "-c", '"$@"; echo "status $?"', "bash", *command, check=False, **options
        ).rpartition("status ")
        assert "Traceback" not in text
        return text, int(end)

    def wg(self, *words: str) -> str:
        text, status = self.run("wg", *words)
        assert status == 0, text
        return text

    def wgpy(self, *words: str, **options: Any) -> str:
        text, status = self.run("wgpy", *words, **options)
        assert status == 0, text
        return text

    def refused(self, *words: str, **options: Any) -> str:
        """The one line of a command that fails; checks that nothing has changed."""
        before = self.configuration()
        text, status = self.run("wgpy", *words, **options)
        assert status == 1, text
        assert text.count("\n") == 1, text
        assert self.configuration() == before
        return text

    def file(self, text: str) -> str:
        path = self.directory / "file.conf"
        path.write_text(text)
        return str(path)

    def reset(self) -> None:
        """An interface with FULL's configuration, set by wg."""
        self.wg("setconf", self.name, self.file(FULL))

    def configuration(self) -> list[str]:
        """What `wg` shows of the interface."""
        return ordered(self.wg("showconf", self.name))


def ordered(text: str) -> list[str]:
    """The sections, or lines, in sorted order: wireguard-go lists its peers in any order."""
    sections = text.rstrip("\n").split("\n\n")
    return sorted(sections if len(sections) > 1 else text.splitlines())


def without_random_port(sections: list[str]) -> list[str]:
    """Replace the port: ours have four digits, those that the kernel chooses have five."""
    return [re.sub(r"ListenPort = \d{5}", "ListenPort = any", section) for section in sections]


@pytest.fixture(params=["wgpy", "wireguard-go"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with Namespace() as namespace:
        served = Served(namespace, tmp_path)
        if request.param == "wgpy":
            namespace.run(forked_wgpy(), served.name)
        else:
            environment = {**os.environ, "LOG_LEVEL": "silent", "WG_PROCESS_FOREGROUND": "1"}
            namespace.popen("wireguard-go", "-f", served.name, env=environment)
        socket = Path(f"/var/run/wireguard/{served.name}.sock")
        assert wait_for(socket.exists)
        served.reset()
        yield served
        namespace.run("ip", "link", "delete", served.name)
        assert wait_for(lambda: not socket.exists())


def test_every_form_of_show_matches_wg(served: Served) -> None:
    name = served.name
    for words in ([name], *([name, parameter] for parameter in PARAMETERS)):
        assert ordered(served.wgpy("show", *words)) == ordered(served.wg("show", *words)), words
    for parameter in PARAMETERS:  # there may be interfaces of others
        ours, theirs = (served.run(program, "show", "all", parameter)[0] for program in ("wgpy", "wg"))
        lines = [line for line in ordered(ours) if line.startswith(f"{name}\t")]
        assert lines
        if parameter != "endpoints":  # wg names the interface in the first of these lines only
            assert lines == [line for line in ordered(theirs) if line.startswith(f"{name}\t")]
    for program in ("wg", "wgpy"):
        assert name in served.run(program, "show", "interfaces")[0].removesuffix("\n").split(" ")
    assert ordered(served.wgpy("showconf", name)) == served.configuration()


def test_every_form_of_show_works_for_an_empty_interface(served: Served) -> None:
    served.wg("setconf", served.name, "/dev/null")
    for words in (["show", served.name], ["showconf", served.name], *(["show", served.name, p] for p in PARAMETERS)):
        assert served.run("wgpy", *words) == served.run("wg", *words), words


@pytest.mark.parametrize("variable", ["WG_HIDE_KEYS=never", "WG_COLOR_MODE=always", "WG_COLOR_MODE=never"])
def test_environment_variables_work_as_for_wg(served: Served, variable: str) -> None:
    programs = (forked_wgpy(), "wg")
    ours, theirs = (served.namespace.run("env", variable, program, "show", served.name) for program in programs)
    assert ordered(ours) == ordered(theirs)
    assert ("\x1b" in ours) is (variable == "WG_COLOR_MODE=always")
    assert (KEY.base64() in ours and PSK.base64() in ours) is (variable == "WG_HIDE_KEYS=never")


def test_show_reports_what_it_cannot_show(served: Served) -> None:
    for words in (["nosuch"], ["nosuch", "peers"], ["a/b"], [""], ["x" * 200]):
        assert "Unable to access interface" in served.refused("show", *words)
    text, status = served.run("wgpy", "show", served.name, "nonsense")
    assert text.startswith("Invalid parameter: `nonsense'\nusage: wgpy show")
    assert (status, served.run("wg", "show", served.name, "nonsense")[1]) == (1, 1)


def test_a_user_without_permission_is_told_so(served: Served) -> None:
    # Loaded as root first, for nobody may be kept from reading this checkout.
    program = (
        "import locale, os, shutil, sys, wgpy.cli.commands, wgpy.cli.show, wgpy.cli.wg, wgpy.daemon.uapi_client; "
        "from wgpy.cli import main; os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    )
    command = (WGPY[0], "-c", program)
    for words in (["show", served.name], ["showconf", served.name], ["set", served.name, "fwmark", "1"]):
        text = served.namespace.run(*command, *words, check=False)
        assert "Permission denied" in text
        assert text.endswith(": run as root\n")
        assert text.count("\n") == 1
    assert f"Unable to access interface {served.name}: Permission denied" in served.namespace.run(
        *command, "show", check=False
    )


FILES = {
    "full": FULL,
    "small": SMALL,
    "empty": "",
    "keys only": f"[interface]\nprivatekey={A}#comment\n",
    "peer twice": f"[Peer]\nPublicKey={C}\nAllowedIPs=10.8.0.0/16\n"
    f"[Peer]\nPublicKey={C}\nAllowedIPs=10.9.0.0/16\nPersistentKeepalive=off",
    "no allowed ips": f"[Interface]\nFwMark = off\n"
    f"[Peer]\nPublicKey = {A}\nPresharedKey = {PSK.base64()}\nPersistentKeepalive = 7\n",
}


@pytest.mark.parametrize("verb", ["setconf", "addconf", "syncconf"])
def test_setconf_addconf_and_syncconf_do_what_wgs_do(served: Served, verb: str) -> None:
    for what, text in FILES.items():
        results = []
        for program in ("wg", "wgpy"):
            served.reset()
            said, status = served.run(program, verb, served.name, served.file(text))
            assert status == 0, said
            results.append(without_random_port(served.configuration()))
        assert results[0] == results[1], what


@pytest.mark.parametrize("verb", ["setconf", "addconf", "syncconf"])
@pytest.mark.parametrize("served", ["wgpy"], indirect=True)
def test_a_file_with_a_mistake_changes_nothing(served: Served, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "0")
    for text, said in [
        ("[Interface]\nListenPort = 1\nMTU = 1420\n", ":3: MTU: line unrecognized"),
        ("[Interface]\nPostUp = true\n", ":2: PostUp: line unrecognized"),
        ("[Interface]\nListenPort = 65536\n", ":2: ListenPort: expected"),
        ("[Interface]\nnonsense\n", ":2: expected"),
        ("[Peer]\nAllowedIPs = 10.0.0.0/8\n", ":1: PublicKey: missing"),
        ("[Interface]\nFwMark = 1\n[Peer]\nPublicKey = AAAA\n", ":4: PublicKey: expected"),
        (f"[Interface]\nFwMark = 1\n[Peer]\nPublicKey = {A}\nEndpoint = host.invalid:5\n", "host.invalid"),
        (f"[Interface]\nFwMark = 1\n[Peer]\nPublicKey = {A}\nEndpoint = 192.0.2.1\n", ":5: Endpoint: expected"),
    ]:
        assert said in served.refused(verb, served.name, served.file(text))
    assert "No such file" in served.refused(verb, served.name, str(served.directory / "nonesuch"))
    assert "Unable to" in served.refused(verb, "nosuch", served.file(SMALL))


def test_syncconf_removes_what_the_file_leaves_out(served: Served) -> None:
    """Debian's wg is older than this, and leaves the preshared key."""
    served.wgpy("syncconf", served.name, served.file(f"[Interface]\nListenPort = 7002\n[Peer]\nPublicKey = {A}\n"))
    assert served.wg("show", served.name, "dump").splitlines() == [
        "(none)\t(none)\t7002\toff",
        f"{A}\t(none)\t192.0.2.1:1000\t(none)\t0\t0\t0\toff",
    ]


def test_a_file_may_come_from_standard_input(served: Served) -> None:
    assert served.namespace.run(forked_wgpy(), "setconf", served.name, "/dev/stdin", input=SMALL) == ""
    assert served.wg("show", served.name, "peers") == f"{C}\n"


def test_set_does_what_wg_set_does(served: Served) -> None:
    meaning = {"A": A, "B": B, "C": C, "NEW": PrivateKey(b"n" * 32).public_key.base64(), "NOTHING": ""}
    for name, content in (("KEYFILE", PrivateKey(b"2" * 32).base64() + "\n"), ("PSKFILE", PSK.base64()), ("EMPTY", "")):
        (served.directory / name).write_text(content)
        meaning[name] = str(served.directory / name)
    for words in [
        "listen-port 7009",
        "listen-port 0 fwmark 7",
        "fwmark off",
        "fwmark 0xFf private-key KEYFILE",
        "private-key /dev/null",
        "private-key EMPTY listen-port 7003 peer A remove",
        "peer A preshared-key /dev/null",
        "peer B preshared-key PSKFILE persistent-keepalive 1 endpoint 127.0.0.1:5",
        "peer A persistent-keepalive off endpoint [::1]:5 peer C remove peer B endpoint localhost:77",
        "peer A allowed-ips 10.7.0.0/16,10.3.0.1/32,fd00::1",
        "peer C allowed-ips NOTHING",
        "peer C allowed-ips 10.3.0.1/16",
        "peer NEW",
        "peer NEW allowed-ips 10.1.0.0/16 peer A allowed-ips 10.1.0.0/24",
        "peer NEW remove",
    ]:
        results = []
        for program in ("wg", "wgpy"):
            served.reset()
            said, status = served.run(program, "set", served.name, *(meaning.get(word, word) for word in words.split()))
            assert status == 0, said
            results.append([said, *without_random_port(served.configuration())])
        assert results[0] == results[1], words


def test_keys_may_come_from_standard_input(served: Served) -> None:
    served.wgpy("set", served.name, "private-key", "/dev/stdin", input=PrivateKey(b"2" * 32).base64())
    assert served.wg("show", served.name, "private-key").strip() == PrivateKey(b"2" * 32).base64()
    served.wgpy("set", served.name, "peer", C, "preshared-key", "/dev/stdin", input=PSK.base64() + "\n")
    assert f"{C}\t{PSK.base64()}" in served.wg("show", served.name, "preshared-keys")


@pytest.mark.parametrize("served", ["wgpy"], indirect=True)
def test_allowed_ips_are_added_and_removed(served: Served) -> None:
    """Debian's wireguard-go and wg are older than this."""

    def of_a() -> list[str]:
        shown = served.wg("show", served.name, "allowed-ips").splitlines()
        return next(line.split("\t")[1].split(" ") for line in shown if line.startswith(A))

    served.wgpy("set", served.name, "peer", A, "allowed-ips", "+10.7.0.0/16,-fd01::/64")
    assert of_a() == ["10.1.0.0/16", "::ffff:1.2.3.4/128", "10.7.0.0/16"]
    served.wgpy("set", served.name, "peer", A, "allowed-ips", "-10.7.0.0/16")
    assert of_a() == ["10.1.0.0/16", "::ffff:1.2.3.4/128"]
    served.wgpy("set", served.name, "peer", A, "allowed-ips", "10.8.0.0/16,+10.9.0.0/16")
    assert of_a() == ["10.8.0.0/16", "10.9.0.0/16"]


@pytest.mark.parametrize("served", ["wgpy"], indirect=True)
def test_set_refuses_with_a_one_line_error_and_changes_nothing(served: Served) -> None:
    refusals: list[tuple[list[str], str]] = [
        ([], "nothing to set"),
        (["bogus"], "Invalid argument: 'bogus'"),
        (["listen-port"], "listen-port: expected a value"),
        (["listen-port", "65536"], "ListenPort: expected"),
        (["fwmark", "-1"], "FwMark: expected"),
        (["fwmark", "0x100000000"], "FwMark: expected"),
        (["endpoint", "192.0.2.1:5"], "endpoint belongs after a peer"),
        (["remove"], "remove belongs after a peer"),
        (["fwmark", "1", "peer", A, "listen-port", "5"], "listen-port belongs before the first peer"),
        (["fwmark", "1", "peer", "AAAA"], "PublicKey: expected"),
        (["fwmark", "1", "peer"], "peer: expected a value"),
        (["fwmark", "1", "peer", A, "persistent-keepalive", "65536"], "PersistentKeepalive: expected"),
        (["fwmark", "1", "peer", A, "allowed-ips", "10.0.0.0/33"], "AllowedIPs: expected"),
        (["fwmark", "1", "peer", A, "allowed-ips", "10.0.0.0/8,"], "AllowedIPs: expected"),
        (["fwmark", "1", "peer", A, "allowed-ips", "+-10.0.0.0/8"], "AllowedIPs: expected"),
        (["fwmark", "1", "peer", A, "endpoint", "192.0.2.1:0"], "Endpoint: expected"),
        (["private-key", "/nonexistent"], "private-key: /nonexistent: No such file"),
        (["private-key", "/etc/hostname"], "Key is not the correct length or format"),
        (["private-key", KEY.base64()], "expected a file, not the key"),
        (["peer", A, "preshared-key", PSK.base64()], "expected a file, not the key"),
        (["fwmark", "1", PSK.base64()], "Invalid argument: (not shown)"),
    ]
    for words, said in refusals:
        text = served.refused("set", served.name, *words)
        assert said in text
        assert KEY.base64() not in text
        assert PSK.base64() not in text


def test_what_the_interface_refuses_is_reported(served: Served) -> None:
    assert "Unable to modify interface nosuch: No such device" in served.refused("set", "nosuch", "fwmark", "1")


@pytest.mark.parametrize("served", ["wgpy"], indirect=True)
def test_watch_repeats_and_ends_on_interrupt(served: Served) -> None:
    process = served.namespace.popen(*WGPY, "show", served.name, "--watch", "0.05", stdout=subprocess.PIPE)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(60)]
    first, second = [number for number, line in enumerate(seen) if line == f"interface: {served.name}\n"][:2]
    assert first == 0
    assert seen[second - 1] == "\n", "a blank line, as between interfaces"
    assert "\x1b" not in "".join(seen)
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(60) == 130


@pytest.mark.parametrize("served", ["wgpy"], indirect=True)
def test_watch_redraws_a_terminal(served: Served) -> None:
    master, slave = pty.openpty()
    process = served.namespace.popen(
        *WGPY, "show", served.name, "fwmark", "--watch", "0.05", stdout=slave, stderr=subprocess.STDOUT
    )
    os.close(slave)
    seen = b""
    while seen.count(b"\x1b[H") < 3:
        seen += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    os.close(master)
    assert re.match(rb"(\x1b\[H0x1f\x1b\[K\r\n\x1b\[J){2}", seen)


@pytest.mark.parametrize("verb", ["showconf", "set", "setconf", "addconf", "syncconf"])
def test_each_command_has_help_and_refuses_too_few_arguments(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, status in (([verb, "-h"], 0), ([verb], 2)):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == status
        said = capsys.readouterr()
        assert f"usage: wgpy {verb}" in (said.err if status else said.out)
