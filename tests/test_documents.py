"""What the documents say to type is right: commands parse, files are read, programs run as nobody through a tunnel."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.adapters.conftest import Web
from tests.adapters.conftest import web as web
from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.namespace.conftest import Server
from tests.namespace.conftest import server as server
from tests.support import layers
from tests.support.nobody import NOBODY, as_nobody, let_pass
from wgpy.cli.commands import parser
from wgpy.config.services import split
from wgpy.config.wgquick import parse
from wgpy.keys import PrivateKey

ROOT = Path(__file__).parents[1]
OF_THE_REPOSITORY = [
    page for pattern in ("*.md", "docs/**/*.md", "examples/*/README.md") for page in sorted(ROOT.glob(pattern))
]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]


class Block(NamedTuple):
    """A fenced block, where it stands, and what it is said to be."""

    place: str
    kind: str
    text: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            found.append(Block(f"{page.relative_to(ROOT)}:{line}", match[1], match[2]))
    return found


BLOCKS = blocks()
PYTHON = [block for block in BLOCKS if block.kind == "python"]
COMMANDS = [
    pytest.param(line, id=f"{block.place} {line}")
    for block in BLOCKS
    if block.kind in ("", "sh")
    for line in re.split(r"\n| ; ", re.sub(r"\\\n *", "", block.text))  # where it goes on in the next line
    if re.match(r"(sudo |ip netns exec \w+ )?wgpy \S", line)
]


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 30
    assert len(PYTHON) > 5
    assert {block.kind for block in BLOCKS} <= {"", "sh", "ini", "python", "text", "yaml", "json", "sql"}


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_parses(line: str) -> None:
    command = re.sub(r"^(sudo |ip netns exec \w+ )|\s+#.*$|\s*[|<>&].*$", "", line)
    words = shlex.split(command)[1:]
    if "..." in words or (words and words[0] not in _verbs()):  # abridged; or wireguard-go's way: `wgpy wg0`
        return
    _parser().parse_args(words)


@cache
def _parser() -> argparse.ArgumentParser:
    return parser()


@cache
def _verbs() -> set[str]:
    return set(re.findall(r"^    (\w+) ", _parser().format_help(), re.MULTILINE)) | {"show", "set", "up", "exec"}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "ini"], ids=lambda block: block.place)
def test_each_configuration_is_read(block: Block) -> None:
    rest, _ = split(re.sub(r"<[^>]*>", lambda _: PrivateKey.generate().base64(), block.text), block.place)
    if "[" in rest:
        parse(rest, block.place)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_each_program_compiles(block: Block) -> None:
    compile(block.text, block.place, "exec")


def test_every_test_that_a_page_names_exists() -> None:
    named = {(page, name) for page in PAGES for name in re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", page.read_text())}
    assert len(named) > 80
    for page, name in named:
        path, _, function = name.partition("::")
        text = (ROOT / path).read_text()
        assert not function or f"def {function}(" in text, f"{page}: {name}"


def test_every_file_that_a_page_of_the_repository_links_to_exists() -> None:
    links = {
        (page, link)
        for page in OF_THE_REPOSITORY
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", page.read_text())
        if not re.match(r"\w+:", link)
    }
    assert len(links) > 80
    assert [
        f"{page.relative_to(ROOT)}: {link}" for page, link in sorted(links) if not (page.parent / link).exists()
    ] == []


def test_the_site_lists_every_page_once() -> None:
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    assert sorted(listed) == sorted(set(listed))
    assert {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} <= set(listed)


def test_the_drawing_of_the_layers_matches_the_imports() -> None:
    assert layers.PICTURE.read_text() == layers.draw(), "imports have changed: python -m tests.support.layers"


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/explanation/choices.md"])
def test_every_name_in_the_architecture_exists(page: str) -> None:
    named = set(re.findall(r"`([\w.]+/[\w./]*)`", (ROOT / page).read_text()))
    assert len(named) > 20
    for name in named:
        places = (base / f"{name}{end}" for base in (ROOT, ROOT / "wgpy", ROOT / "wgpy/stack") for end in ("", ".py"))
        assert any(place.exists() for place in places), f"{page} names {name}"


def test_each_answer_of_the_architecture_names_what_its_files_contain() -> None:
    rows = re.findall(r"^\| (Where .*|What .*)\? \| (.*) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert len(rows) > 10
    for question, answer in rows:
        files = re.findall(r"`([\w/]+\.py)`", answer)
        text = "".join((ROOT / (file if file.startswith("tests/") else f"wgpy/{file}")).read_text() for file in files)
        for name in re.findall(r"`(\w+)`", answer):
            assert name in text, f"{question}: {name}"


@pytest.mark.root
def test_the_programs_run(cable: Cable, server: Server, web: Web) -> None:
    directory = cable.directory / "programs"
    directory.mkdir()
    for name in ("wg0.conf", "left.conf"):
        (directory / name).write_text(server.text)
    for path in (directory, *directory.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    let_pass(cable.directory)

    def body() -> None:
        os.chdir(directory)
        for block in PYTHON:
            if "LinuxTun" in block.text:  # on the host, as root: what `examples/tunnel.py` does
                continue
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            command = (sys.executable, "-c", block.text)
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
            assert done.returncode == 0, f"{block.place}: {done.stderr}"

    async def main() -> None:
        await asyncio.to_thread(body)

    as_nobody(server.client, main)
