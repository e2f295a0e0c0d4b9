"""Type checkers know every public name: all is declared, as `make types` has pyright confirm.

mypy sees to parameters and results. What it does not ask for is checked here: a checker may infer another type than
ours for what is only assigned.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import wgpy

ROOT = Path(wgpy.__file__).parent
_TYPES = (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp)  # of aliases


def undeclared(tree: ast.Module) -> Iterator[str]:
    """The public variables of a module, and the public attributes of its classes' instances, without a type."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and not _is_type(statement.value):
            yield from (name.id for name in statement.targets if isinstance(name, ast.Name) and _is_public(name.id))
        elif isinstance(statement, ast.ClassDef) and _is_public(statement.name):
            yield from (f"{statement.name}.{name}" for name in _assigned(statement) if _is_public(name))


def _assigned(kind: ast.ClassDef) -> list[str]:
    """What methods compute for `self` and nothing in the class declares. Of a name's value the type is known."""
    nodes = list(ast.walk(kind))
    targets = [node.target for node in nodes if isinstance(node, ast.AnnAssign)]
    declared = {target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "") for target in targets}
    declared |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            nodes = [other for other in nodes if other not in node.targets]
    stores = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    return sorted({node.attr for node in stores if getattr(node.value, "id", "") == "self"} - declared)


def _is_type(value: ast.expr) -> bool:
    return isinstance(value, _TYPES) or getattr(getattr(value, "func", None), "id", "") in ("TypeVar", "TypeVarTuple")


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def test_every_public_name_has_a_type() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted(ROOT.rglob("*.py"))
        for name in undeclared(ast.parse(path.read_text()))
        if not _is_inherited(path, name)
    ]
    assert found == [], "declare each: `self.name: type = ...`, or `name: type` in the class"


def _is_inherited(path: Path, name: str) -> bool:
    """Whether a base has a property or a field of that name."""
    kind, _, attribute = name.partition(".")
    module = import_module(".".join(("wgpy", *path.relative_to(ROOT).with_suffix("").parts)))
    return bool(attribute) and any(
        hasattr(base, attribute) or attribute in vars(base).get("__annotations__", {})
        for base in getattr(module, kind).__mro__[1:]
    )


def test_what_is_not_declared_is_found() -> None:
    text = """
log = make()
limit: Final = 5
T = TypeVar("T")
Both = int | str
class Shown:
    declared: int
    def __init__(self, number: int):
        self.declared = self.bare = self._hidden = 1
        self.inline: int = 1
        self.known = number
class _Hidden:
    def __init__(self):
        self.bare = 1
"""
    assert list(undeclared(ast.parse(text))) == ["log", "Shown.bare"]
