"""What the Python reference has to show: every public name, and every member that a public class has from wgpy."""

from __future__ import annotations

import ast
import enum
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import wgpy

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "python"


class Member(NamedTuple):
    """A field, property, method or enum member, and what its documentation says; empty without any."""

    name: str
    text: str


def names() -> list[str]:
    """Every name that the pages show, as one imports it, in their order."""
    return [name for page in sorted(PAGES.glob("*.md")) for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]


def found(name: str) -> Any:
    """What has that name. Raises ModuleNotFoundError for an adapter whose library is missing here."""
    home, _, last = name.rpartition(".")
    if not home or importlib.util.find_spec(home) is None:
        raise ModuleNotFoundError(name)
    module = importlib.import_module(home)
    return getattr(module, last) if hasattr(module, last) else importlib.import_module(name)


def anchors() -> Iterator[str]:
    """What links to the reference can lead to: each name, and each member of a class."""
    for name in names():
        yield name
        try:
            kind = found(name)
        except ModuleNotFoundError:
            continue
        if isinstance(kind, type):
            yield from (f"{name}.{member.name}" for member in members(kind))


def public() -> set[str]:
    """Every public name: those of `wgpy`, and those of its public modules that it does not have itself."""
    modules = [module for name in wgpy._MODULES if isinstance(module := getattr(wgpy, name), ModuleType)]
    adapters = Path(wgpy.__file__).parent / "adapters"
    modules += [importlib.import_module(f"wgpy.adapters.{path.stem}") for path in adapters.glob("[a-z]*.py")]
    own = {f"wgpy.{name}": getattr(wgpy, name) for name in wgpy._HOME_OF}
    theirs = {f"{module.__name__}.{name}" for module in modules for name in _public_of(module)}
    return own.keys() | {name for name in theirs if found(name) not in own.values()}


def _public_of(module: ModuleType) -> list[str]:
    """Its `__all__`, or the classes and functions that are defined in it."""
    defined = [
        name
        for name, value in vars(module).items()
        if callable(value) and hasattr(value, "__qualname__") and value.__module__ == module.__name__
    ]
    return list(getattr(module, "__all__", [name for name in defined if not name.startswith("_")]))


def members(kind: type) -> Iterator[Member]:
    """The public members of a class, its own and those of its bases in the same package, each once."""
    seen = set()
    package = kind.__module__.partition(".")[0]
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != package:
            continue
        texts = _field_texts(base)
        for name in (*_fields_of(base), *texts, *vars(base)):
            if not name.startswith("_") and name not in seen:
                seen.add(name)
                yield Member(name, texts.get(name) or _text_of(vars(base).get(name)))


def _fields_of(kind: type) -> list[str]:
    if is_dataclass(kind):
        return [field.name for field in fields(kind)]
    if issubclass(kind, enum.Enum):
        return [member.name for member in kind]
    return [*getattr(kind, "_fields", ()), *_assigned(kind)]


def _text_of(value: object) -> str:
    """The docstring of a method or property, and not that of its base's or of its type."""
    for wrapper in ("fget", "func", "__func__"):  # of properties, cached properties and class methods
        value = getattr(value, wrapper, value)
    return (inspect.isfunction(value) and value.__doc__) or ""


def _body(kind: type) -> list[ast.stmt]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    return definition.body


def _field_texts(kind: type) -> dict[str, str]:
    """The strings below fields in the class: what the reference and editors take for their documentation."""
    texts = {}
    for statement, following in pairwise([*_body(kind), ast.Pass()]):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name):
            value = following.value if isinstance(following, ast.Expr) else None
            texts[target.id] = str(value.value) if isinstance(value, ast.Constant) else ""
    return texts


def _assigned(kind: type) -> list[str]:
    """The attributes that `__init__` gives to an instance."""
    inits = [each for each in _body(kind) if getattr(each, "name", "") == "__init__"]
    nodes = [node for init in inits for node in ast.walk(init) if isinstance(node, ast.Attribute)]
    return [
        node.attr
        for node in nodes
        if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"
    ]
