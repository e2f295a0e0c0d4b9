"""The client connect handler: a program, or a function, that answers, is late, fails or talks nonsense."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import uvloop

import wgpy
from wgpy.gateway.policy.handler import TIMEOUT, Answer, question, read_answer
from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.service.ask import MEMORY, ask
from wgpy.gateway.service.live import Question

TEXT = question("c1", interface="wg0", device="phone", user="alice", groups={"b", "a"}, public_ip="198.51.100.7")
GOOD = {
    "allow": True,
    "error-msg-on-denied-connection": "",
    "posture-compliance-statuses": ["compliant"],
    "schema-version": "v2",
}


def answer(handler: str, seconds: float = 30) -> Answer | Reason:
    return asyncio.run(ask(Question("c1", handler, TEXT), seconds))


def program(path: Path, source: str) -> str:
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{source}\n")
    path.chmod(0o700)
    return str(path)


def test_the_handler_is_asked_with_the_keys_of_aws_and_answers_with_them(tmp_path: Path) -> None:
    source = f"open({str(tmp_path / 'asked')!r}, 'w').write(sys.stdin.read()); print({json.dumps(GOOD)!r})"
    assert answer(program(tmp_path / "handler", source)) == Answer(True, "", ("compliant",))
    assert json.loads((tmp_path / "asked").read_text()) == {
        "connection-id": "c1",
        "endpoint-id": "wg0",
        "common-name": "phone",
        "username": "alice",
        "platform": "",
        "platform-version": "",
        "public-ip": "198.51.100.7",
        "client-openvpn-version": "",
        "groups": ["a", "b"],
        "schema-version": "v2",
    }


def test_a_python_function_may_be_the_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "posture.py").write_text(
        "def check(asked):\n"
        "    return {'allow': asked['username'] == 'bob', 'error-msg-on-denied-connection': 'only Bob',\n"
        "            'posture-compliance-statuses': [], 'schema-version': 'v2'}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert answer("posture:check") == Answer(False, "only Bob", ())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("sys.exit('no database')", Reason.HANDLER_ERROR),
        ("os.kill(os.getpid(), 9)", Reason.HANDLER_ERROR),
        ("time.sleep(60)", Reason.HANDLER_TIMEOUT),
        ("pass", Reason.HANDLER_INVALID),
        ("print('x' * 1000000)", Reason.HANDLER_INVALID),
    ],
)
def test_no_answer_is_a_refusal(source: str, reason: Reason, tmp_path: Path) -> None:
    handler = program(tmp_path / "handler", source)
    assert answer(handler, 0.5 if reason is Reason.HANDLER_TIMEOUT else 30) is reason


def test_the_handler_gets_a_small_environment_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    source = f"""
import resource
seen = [sorted(os.environ), os.getcwd(), *(resource.getrlimit(getattr(resource, name))[0] for name in
        ("RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_CORE"))]
print(json.dumps({GOOD!r} | {{"posture-compliance-statuses": [json.dumps(each) for each in seen]}}))
"""
    asked = answer(program(tmp_path / "handler", source))
    assert isinstance(asked, Answer)
    names, directory, *limits = map(json.loads, asked.posture)
    assert set(names) - {"LC_CTYPE", "PYTHONPATH", "TZ"} == {"HOME", "LANG", "PATH", "USER"}
    assert directory == "/"
    assert limits == [MEMORY, TIMEOUT, 0]


def test_a_handler_that_takes_too_much_memory_fails(tmp_path: Path) -> None:
    source = f"kept = bytes({MEMORY}); print({json.dumps(GOOD)!r})"
    assert answer(program(tmp_path / "handler", source)) is Reason.HANDLER_ERROR


@pytest.mark.root
def test_the_handler_runs_as_the_user_who_is_set() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    statuses = '"posture-compliance-statuses": ["\'$(id -un)\'", "\'$(id -Gn)\'", "\'$HOME\'"]'
    text = json.dumps(GOOD).replace('"posture-compliance-statuses": ["compliant"]', statuses)
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        handler = Path(directory) / "handler"
        handler.write_text(f"#!/bin/sh\necho '{text}'\n")
        handler.chmod(0o755)
        asked = asyncio.run(ask(Question("c1", str(handler), TEXT, "nobody")))
        assert asked == Answer(True, "", ("nobody", "nogroup", pwd.getpwnam("nobody").pw_dir))
        assert asyncio.run(ask(Question("c1", str(handler), TEXT, "no-such-user"))) is Reason.HANDLER_ERROR


@pytest.mark.root
def test_a_gateway_that_may_not_change_its_user_refuses(caplog: pytest.LogCaptureFixture) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    source = (
        "import asyncio, logging; logging.basicConfig(); from wgpy.gateway.service.ask import MEMORY, ask; "
        "from wgpy.gateway.service.live import Question; "
        "print(asyncio.run(ask(Question('c1', '/bin/true', '{}', 'nobody'))))"
    )
    command = ["setpriv", "--bounding-set=-setuid,-setgid", "--inh-caps=-setuid,-setgid", sys.executable, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Reason.HANDLER_ERROR
    assert "cannot become user nobody: Operation not permitted" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_gateway_that_may_not_end_a_late_handler_of_another_user_refuses_and_says_so(loop: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        handler, began = Path(directory) / "handler", Path(directory) / "began"
        handler.write_text(f"#!/bin/sh\necho $$ > {began}\nexec sleep 60\n")
        handler.chmod(0o755)
        began.touch()
        began.chmod(0o666)
        source = (
            f"import asyncio, {loop}, logging; logging.basicConfig(); from wgpy.gateway.service.ask import ask; "
            "from wgpy.gateway.service.live import Question; "
            f"print({loop}.run(ask(Question('c1', {str(handler)!r}, '{{}}', 'nobody'), 2)))"
        )
        command = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill", sys.executable, "-c", source]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
        os.kill(int(began.read_text()), signal.SIGKILL)
    assert done.stdout.strip() == Reason.HANDLER_TIMEOUT
    assert "no answer in 2 seconds, and ending it takes CAP_KILL" in done.stderr


def test_a_missing_handler_is_a_refusal() -> None:
    assert answer("/nonexistent/handler") is Reason.HANDLER_ERROR
    assert answer("no_such_module:function") is Reason.HANDLER_ERROR


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"allow": 1}, "allow: expected true or false"),
        ({"allow": None}, "allow: expected true or false"),
        ({"error-msg-on-denied-connection": "x" * 256}, "at most 255 characters"),
        ({"posture-compliance-statuses": ["a"] * 11}, "at most 10 texts"),
        ({"posture-compliance-statuses": "compliant"}, "at most 10 texts"),
        ({"posture-compliance-statuses": ["x" * 256]}, "at most 10 texts"),
        ({"schema-version": "v1"}, "schema-version: expected 'v2'"),
    ],
)
def test_an_answer_with_a_wrong_value_says_which(changed: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_answer(json.dumps({**GOOD, **changed}).encode())


def test_control_characters_of_an_answer_are_left_out() -> None:
    odd = {"error-msg-on-denied-connection": "ask\0 the\n help\ud800desk", "posture-compliance-statuses": ["a\0b"]}
    assert read_answer(json.dumps({**GOOD, **odd}).encode()) == Answer(True, "ask the helpdesk", ("ab",))


@pytest.mark.parametrize("text", [b"", b"[]", b"true", b"\xff", b"{} {}"])
def test_an_answer_must_be_an_object(text: bytes) -> None:
    with pytest.raises(ValueError, match="expected one JSON object"):
        read_answer(text)


def test_a_handler_that_is_late_ends_with_the_programs_that_it_started(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    handler = tmp_path / "handler"
    handler.write_text(f"#!/bin/sh\nsleep 60 > {fifo}\n")
    handler.chmod(0o700)
    asked = ask(Question("c1", str(handler), TEXT), 0.5)
    assert asyncio.run(asyncio.wait_for(asked, 20)) is Reason.HANDLER_TIMEOUT
    assert select.select([held], [], [], 5)[0]  # the end of the file: nobody has it open for writing
    assert os.read(held, 1) == b""
    os.close(held)


def test_what_a_handler_leaves_in_the_background_is_killed_once_it_has_answered(tmp_path: Path) -> None:
    source = f"import subprocess; subprocess.Popen(['sleep', '60']); print({json.dumps(GOOD)!r})"
    assert answer(program(tmp_path / "handler", source)) == Answer(True, "", ("compliant",))


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("then", ["", "; time.sleep(60)"])
def test_a_child_that_has_left_the_session_keeps_no_pipe_of_ours_open(
    then: str, loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def ask_in_vain(name: str, children: ExitStack) -> int:
        """Ask until there is such a child, which lives until `children` is closed. Returns how many files are open."""
        fifo = tmp_path / f"{name}.fifo"
        os.mkfifo(fifo)
        source = f"import subprocess; subprocess.Popen(['cat', {str(fifo)!r}], start_new_session=True){then}"
        handler = program(tmp_path / name, source)
        for attempt in range(6):
            asked = ask(Question("c1", handler, TEXT), 0.5 * 2**attempt)
            assert await asyncio.wait_for(asked, 30) is Reason.HANDLER_TIMEOUT
            with suppress(OSError):  # if the child does not read yet
                children.callback(os.close, os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
                return len(os.listdir("/proc/self/fd"))
        raise AssertionError("the child never began to read")

    with ExitStack() as children, asyncio.Runner(loop_factory=loop_factory) as runner:
        first, second = (runner.run(ask_in_vain(name, children)) for name in ("first", "second"))
        assert second == first + 1  # our end of the fifo


def test_an_answer_that_is_nested_too_deeply_is_a_refusal(tmp_path: Path) -> None:
    assert answer(program(tmp_path / "handler", "print('[' * 60000)")) is Reason.HANDLER_INVALID


def test_what_is_started_imports_nothing_from_the_current_directory_unless_we_do(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("print('imported')")
    imported = "import subprocess; from wgpy.gateway.enforcement.dataplane import PYTHON"
    source = f"{imported}; subprocess.run([*PYTHON, '-m', 'odd'])"
    environment = {**os.environ, "PYTHONPATH": str(Path(wgpy.__file__).parent.parent)}
    for flags, expected in ((["-P"], ""), ([], "imported\n")):
        command = [sys.executable, *flags, "-c", source]
        assert (
            subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False).stdout
            == expected
        )
