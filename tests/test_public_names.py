"""The public names: each resolves, type checkers see the same ones, and nothing else is promised."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import wgpy


@pytest.mark.parametrize("name", wgpy.__all__)
def test_each_public_name_resolves_to_something_documented(name: str) -> None:
    assert getattr(wgpy, name).__doc__


def test_type_checkers_see_the_names_that_exist() -> None:
    tree = ast.parse(Path(wgpy.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = [alias.asname for line in block.body if isinstance(line, ast.ImportFrom) for alias in line.names]
    assert sorted(filter(None, seen)) == wgpy.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Tunel'"):
        wgpy.Tunel  # noqa: B018


def test_dir_lists_the_public_names() -> None:
    assert set(wgpy.__all__) < set(dir(wgpy))
