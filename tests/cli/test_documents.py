"""The manual pages have every command and key, and groff finds nothing wrong with them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tools import needs
from wgpy.cli import documents
from wgpy.cli.arguments import commands
from wgpy.config import clients, services, wgquick

ROOT = Path(__file__).parents[2]


def printed(document: str) -> str:
    command = [sys.executable, "-m", "wgpy.cli.documents", document]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_manual_has_every_command_and_option() -> None:
    page = printed("man").replace("\\-", "-")
    assert len(commands()) > 10
    for command in commands():
        assert f".SS {command.usage}\n" in page
        for argument in command.arguments:
            if "-h" not in argument.flags:
                assert argument.help in page
                assert all(f"\\fB{flag}\\fR" in page for flag in argument.flags)


KEYS = {
    *(name for _, name, _ in wgquick.described_keys()),
    *(key.name for key in (*wgquick.ROWS, *wgquick.COMMENTS)),
    wgquick.NAME,
    "# Endpoint",
    clients._DISABLED,
    "WGConfig",
}


def test_the_manual_of_files_has_every_key_with_its_meaning() -> None:
    assert clients._ENDPOINT.fullmatch("# Endpoint = vpn.example.org")
    assert {*documents.MEANINGS, "WGConfig"} == KEYS
    assert list(documents.WIREPROXY) == ["WGConfig", *(f"[{section}]" for section in services.SECTIONS)]
    page = printed("conf")
    bold = [line[3:].replace("\\-", "-") for line in page.splitlines() if line.startswith(".B ")]
    assert sorted(bold) == sorted([*documents.MEANINGS, *documents.WIREPROXY, "wgpy check"])
    for section, keys in services.SECTIONS.items():
        assert [key for key in keys if key not in documents.WIREPROXY[f"[{section}]"]] == []


def test_the_page_about_files_has_every_key() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    described = {key.partition(" = ")[0].strip() for row in rows for key in re.findall(r"`([^`]+)`", row[0])}
    assert KEYS - described == set()
    for section, keys in services.SECTIONS.items():
        (row,) = [row for row in rows if row[0].strip() == f"`[{section}]`"]
        assert re.findall(r"`(\w+)`", row[1]) == list(keys)


@needs("groff")
@pytest.mark.parametrize("page", ["man", "conf"])
def test_groff_accepts_the_manuals(page: str) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-z"]
    done = subprocess.run(command, input=printed(page), capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_line_that_begins_like_a_roff_request_is_escaped() -> None:
    assert documents._roff(".x -y\\z") == "\\&.x \\-y\\ez"


@pytest.mark.parametrize("arguments", [[], ["html"], ["man", "conf"]])
def test_any_other_argument_is_wrong_usage(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "wgpy.cli.documents", *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
