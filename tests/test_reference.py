"""The Python reference shows every public name, and says something about each of their members."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import wgpy.errors
from tests.support import published

ROOT = Path(__file__).parents[1]
NAMES = published.names()


def test_every_public_name_is_shown_once() -> None:
    shown = [name for name in NAMES if isinstance(published.found(name), type) or callable(published.found(name))]
    assert len(shown) > 50
    assert sorted(shown) == sorted(published.public())


@pytest.mark.parametrize("name", NAMES)
def test_each_name_and_its_members_are_explained(name: str) -> None:
    value = published.found(name)
    assert value.__doc__
    if isinstance(value, type):
        assert [member.name for member in published.members(value) if not member.text] == []


class Base:
    kept: int
    """Bytes."""

    def __init__(self) -> None:
        self.kept = self.bare = self._hidden = 0

    def said(self) -> None:
        """Does it."""


class Derived(Base):
    def silent(self) -> None: ...

    @property
    def value(self) -> int:
        return 0

    @classmethod
    def make(cls) -> None:
        """Makes it."""


def test_a_member_without_explanation_is_noticed() -> None:
    found = {name: bool(text) for name, text in published.members(Derived)}
    assert found == {"silent": False, "value": False, "make": True, "kept": True, "bare": False, "said": True}


def test_every_page_is_in_the_navigation() -> None:
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in published.PAGES.glob("*.md")]
    assert sorted(pages) == sorted(re.findall(r"reference/python/\w+\.md", (ROOT / "mkdocs.yml").read_text()))


def test_the_tree_of_errors_has_each_with_its_built_in_class() -> None:
    rows = [re.findall(r"[\w.]+", line)[:2] for line in str(wgpy.errors.__doc__).splitlines() if "── " in line]
    kinds = {"socket.gaierror": "gaierror"}
    tree = {name: kinds.get(builtin, builtin) for name, builtin in rows}
    for name, kind in vars(wgpy.errors).items():
        if isinstance(kind, type) and issubclass(kind, wgpy.WgpyError) and kind.__module__ == "wgpy.errors":
            above = [base.__name__ for base in kind.__mro__ if base.__module__ in ("builtins", "socket")]
            assert name.startswith("_") or name == "WgpyError" or tree[name] == above[0] or above[0] == "Exception"
