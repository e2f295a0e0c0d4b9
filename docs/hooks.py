"""Pages that are written elsewhere, or made from the code: examples, architecture, commands, the public names."""

from __future__ import annotations

import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from tests.interop.catalogue import page as scenarios
from tests.support import published
from wgpy.cli import arguments, documents
from wgpy.device.effects import DropReason

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[([^\]\[]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
# Files of the repository that are pages of the site, too.
WRITTEN = {"ARCHITECTURE.md": "architecture.md"} | {
    f"examples/{readme.parent.name}/README.md": f"examples/{readme.parent.name}.md"
    for readme in sorted((ROOT / "examples").glob("*/README.md"))
}
# Where a page of the repository links to code, because the page that is made from it is only in the site.
MADE = {
    "wgpy/cli/commands.py": "reference/commands.md",
    "wgpy/device/effects.py": "reference/drops.md",
    "tests/interop": "reference/scenarios.md",
}


def on_files(files: Any, config: Any) -> Any:
    """Add them; a page that `make bench` has not written yet says so."""
    made: dict[str, str | bytes] = {uri: (ROOT / path).read_text() for path, uri in WRITTEN.items()}
    for picture in (ROOT / "examples").glob("*/topology.svg"):
        made[picture.relative_to(ROOT).as_posix()] = picture.read_bytes()
    made |= {"reference/commands.md": commands(), "reference/drops.md": drops(), "reference/scenarios.md": scenarios()}
    if not (ROOT / "docs" / "performance.md").exists():
        made["performance.md"] = "# Performance\n\n`make bench` measures here, and writes this page.\n"
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_post_build(config: Any) -> None:
    """Fail for a public name that cannot be linked to, and for a link that leads to no file without a server."""
    site = Path(config["site_dir"])
    pages = {page: page.read_text() for page in site.rglob("*.html") if page.name != "404.html"}
    ids = {name for text in pages.values() for name in re.findall(r'id="(wgpy[^"]+)"', text)}
    if missing := [name for name in published.anchors() if name not in ids]:
        raise PluginError(f"the reference lacks {', '.join(missing)}")
    for page, text in pages.items():
        for link in re.findall(r'(?:href|src)="([^"#?:]+)["#?]', text):
            if not (page.parent / link).is_file():
                raise PluginError(f"{page.relative_to(site)}: {link} is not a file")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links lead to files of the repository, so that a forge can follow them; here they lead to the site's pages."""
    uri = page.file.src_uri
    source = next((path for path, written in WRITTEN.items() if written == uri), f"docs/{uri}")
    return relinked(markdown, source, uri)


def relinked(text: str, source: str, uri: str) -> str:
    """The text of a file of the repository as the site's page `uri`; links to files without a page become text."""

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if target.startswith("docs/"):
            there = target.removeprefix("docs/")
        elif target.endswith("/topology.svg"):
            there = target
        elif page := (WRITTEN | MADE).get(target) or WRITTEN.get(f"{target}/README.md"):
            there = page
        else:
            return match[1] if (ROOT / target).exists() else match[0]
        return f"[{match[1]}]({posixpath.relpath(there, posixpath.dirname(uri) or '.')}{match[3] or ''})"

    return LINK.sub(link, text)


def commands() -> str:
    """Every command's help, its lines as long as the page is wide."""
    parts = ["# Commands"]
    items = {f"[wgpy {command.name}](#wgpy-{command.name})": plain(command.summary) for command in arguments.commands()}
    parts += [definitions(items)]
    for command in arguments.commands():
        usage = textwrap.fill(command.usage, 78, subsequent_indent="    ", break_on_hyphens=False)
        parts += [f"## wgpy {command.name}", f"``` {{ .text .wrapped }}\n{usage}\n```", plain(command.description)]
        shown = [each for each in command.arguments if each.help and "-h" not in each.flags]
        parts += [definitions({named(argument): plain(argument.help) for argument in shown})]
        parts += [plain(command.epilog)]
    for title, table in (
        ("Files", documents.FILES),
        ("Environment", documents.ENVIRONMENT),
        ("Exit status", documents.EXIT),
    ):
        parts += [f"## {title}", definitions({f"`{term}`": plain(text) for term, text in table.items()})]
    return "\n\n".join(parts) + "\n"


def named(argument: arguments.Argument) -> str:
    """An argument as one types it."""
    return ", ".join(f"`{f'{flag} {argument.value}'.strip()}`" for flag in argument.flags or ("",))


def plain(text: str) -> str:
    """Text in which nothing is markup but code in backquotes."""
    parts = text.split("`")
    return "`".join(re.sub(r"([\\*_\[\]<>#])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))


def definitions(items: dict[str, str]) -> str:
    return "\n\n".join(f"{term}\n:   {text}" for term, text in items.items())


def drops() -> str:
    """The reasons for which packets are dropped."""
    meanings = {f"`{DropReason[name]}`": text for name, text in published.members(DropReason)}
    text = (
        "Every dropped packet is counted under one of these reasons, for its peer or for the interface. "
        "`wgpy show --json` and the metrics show the counts."
    )
    return f"# Why packets are dropped\n\n{text}\n\n{definitions(meanings)}\n"
