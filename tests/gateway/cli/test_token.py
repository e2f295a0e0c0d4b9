"""`wgpy gateway token`: the text of a token is printed once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wgpy.cli import main


def test_a_token_is_printed_alone_once_listed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WGPY_GATEWAY", str(tmp_path / "gateway"))
    monkeypatch.setenv("WGPY_GATEWAY_KEY", str(tmp_path / "gateway.key"))

    def run(command: str) -> tuple[str, str]:
        capsys.readouterr()
        assert main(["gateway", *command.split()]) == 0
        printed = capsys.readouterr()
        return printed.out, printed.err

    run("init --host 192.0.2.1 --pool 10.99.0.0/24")
    out, err = run("token add ci --scope read --scope backup --expires 2030-12-31")
    assert (len(out.split()), out.startswith("wgpy_")) == (1, True)
    assert "it is shown only now" in err
    made = json.loads(run("token add other --scope write --json")[0])
    listed = run("token list --json")[0]
    assert json.loads(listed) == [
        {"name": "ci", "scopes": ["backup", "read"], "made_at": json.loads(listed)[0]["made_at"],
         "expires": 1924992000.0, "used_at": None},
        {key: value for key, value in made.items() if key != "token"},
    ]  # fmt: skip
    everything = listed + run("token list")[0] + run("log --audit --json")[0]
    assert out.strip() not in everything
    assert made["token"] not in everything
    run("token remove ci")
    assert [token["name"] for token in json.loads(run("token list --json")[0])] == ["other"]
