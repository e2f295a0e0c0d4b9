"""How the reference reads wgpy's docstrings: examples after `::` are code, and public names are links."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

import wgpy

EXAMPLE = re.compile(r"^::\n\n((?:[ ]{4}.*\n|\n)+)", re.MULTILINE)
NAME = re.compile(rf"(?<![\w.`])(`?)({'|'.join(wgpy._HOME_OF)})\1(?![\w(=`]|\.\w)")


class Docstrings(griffe.Extension):
    """Makes Markdown of each docstring, and shows values of fields only where they are defaults."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Leave out the expression from which an instance's attribute gets its first value."""
        if "class-attribute" not in attr.labels:
            attr.value = None


def markdown(text: str) -> str:
    parts = EXAMPLE.split(text + "\n")
    parts[0::2] = [linked(part) for part in parts[0::2]]
    parts[1::2] = [
        f"```{'text' if '─' in part else 'python'}\n{textwrap.dedent(part).strip()}\n```\n" for part in parts[1::2]
    ]
    return "".join(parts)


def linked(text: str) -> str:
    return NAME.sub(r"[`\2`][wgpy.\2]", text)
