"""Pages that are written elsewhere, or made from the code: examples, architecture, commands, the public names."""

from __future__ import annotations

import argparse
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

import wgpy
from tests.interop.catalogue import page as scenarios
from wgpy.cli.commands import parser
from wgpy.device.effects import DropReason

ROOT = Path(__file__).parents[1]
REPOSITORY_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add them; a page that `make bench` has not written yet says so."""
    pages = {"architecture.md": (ROOT / "ARCHITECTURE.md", "")}
    for readme in sorted((ROOT / "examples").glob("*/README.md")):
        pages[f"examples/{readme.parent.name}.md"] = (readme, "")
        picture = readme.parent / "topology.svg"
        if picture.exists():
            name = f"examples/{readme.parent.name}/topology.svg"
            files.append(File.generated(config, name, content=picture.read_bytes()))
    for uri, (path, _) in pages.items():
        files.append(File.generated(config, uri, content=relinked(path, uri)))
    made = {"reference/commands.md": commands(), "reference/api.md": api(), "reference/drops.md": drops()}
    made["reference/scenarios.md"] = scenarios()
    if not (ROOT / "docs" / "performance.md").exists():
        made["performance.md"] = "# Performance\n\n`make bench` measures here, and writes this page.\n"
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def relinked(path: Path, uri: str) -> str:
    """A page of the repository, whose links to other pages are the site's; to other files, only their names stay."""

    def link(match: re.Match[str]) -> str:
        target = (path.parent / match[1]).resolve().relative_to(ROOT).as_posix()
        if target.endswith("topology.svg") or target.startswith("docs/"):
            there = target.removeprefix("docs/")
        elif target == "ARCHITECTURE.md":
            there = "architecture.md"
        elif re.fullmatch(r"examples/\w+(/README\.md)?", target) and (ROOT / target).exists():
            there = f"{target.removesuffix('/README.md')}.md"
        else:
            return "]"
        return f"]({posixpath.relpath(there, posixpath.dirname(uri) or '.')}{match[2] or ''})"

    text = REPOSITORY_LINK.sub(link, path.read_text())
    return re.sub(r"(?<!!)\[([^\]\[]*)\](?![(\[:])", r"\1", text)


def commands() -> str:
    """Every command's help, as it prints it."""
    os.environ["COLUMNS"] = "100"
    top = parser()
    verbs = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    parts = ["# Commands", f"```text\n{top.format_help()}```"]
    for name, verb in verbs.choices.items():
        parts += [f"## wgpy {name}", f"```text\n{verb.format_help()}```"]
    return "\n\n".join(parts) + "\n"


def api() -> str:
    """The public names."""
    parts = ["# Python", "Everything below is what `import wgpy` has; each is loaded when it is first used."]
    parts += [f"::: {wgpy._HOME_OF[name]}.{name}" for name in sorted(wgpy._HOME_OF)]
    parts += ["## Configuration files", "::: wgpy.config"]
    parts += ["## Interfaces that run already", "::: wgpy.control"]
    parts += ["## Without a loop", "::: wgpy.blocking", "## Virtual time", "::: wgpy.virtual"]
    parts += ["## Adapters"]
    for module in sorted((ROOT / "wgpy" / "adapters").glob("[a-z]*.py")):
        parts += [f"::: wgpy.adapters.{module.stem}"]
    return "\n\n".join(parts) + "\n"


def drops() -> str:
    """The reasons for which packets are dropped."""
    lines = [f"- `{reason.value}`" for reason in DropReason]
    text = "Each drop has one of these reasons, counted by peer or for the interface: `wgpy show --json`, and metrics."
    return f"# Why packets are dropped\n\n{text}\n\n" + "\n".join(lines) + "\n"
