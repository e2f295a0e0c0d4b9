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
PASSED_ON = {  # to a library of others, whose types a signature of ours would only repeat
    "TunnelAdapter.__init__",
    "TunnelAdapter.init_poolmanager",
    "tunnel_connector",
    "RootlessTunnel.create_subprocess_exec",
    "NamespaceTunnel.create_subprocess_exec",
    "Stack.create_subprocess_exec",
}
_TYPES = (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp)  # of aliases


def undeclared(tree: ast.Module) -> Iterator[str]:
    """The public variables of a module, and the public attributes of its classes' instances, without a type."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and not _is_type(statement.value):
            yield from (name.id for name in statement.targets if isinstance(name, ast.Name) and _is_public(name.id))
        elif isinstance(statement, ast.ClassDef) and _is_public(statement.name):
            yield from (f"{statement.name}.{name}" for name in _assigned(statement) if _is_public(name))


def overridden(tree: ast.Module) -> Iterator[str]:
    """What public classes compute for themselves where a base may have declared another type; enums have no such."""
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.bases and _is_public(statement.name):
            for node in statement.body:
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and not _is_auto(node.value):
                    names = (ast.unparse(target) for target in node.targets)
                    yield from (f"{statement.name}.{name}" for name in names if _is_public(name))


def untyped_options(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    """The public functions and methods that take any options: neither a checker nor a reader learns which there are."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and _is_public(node.name):
            yield from untyped_options(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            _is_public(node.name) or node.name == "__init__"
        ):
            given = node.args.kwarg and node.args.kwarg.annotation
            if given and ast.unparse(given) in ("Any", "object"):
                yield prefix + node.name


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


def _is_auto(call: ast.Call) -> bool:
    return ast.unparse(call.func) in ("auto", "enum.auto")


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


def test_what_overrides_a_base_has_a_type() -> None:
    paths = sorted(ROOT.rglob("*.py"))
    found = [f"{path.relative_to(ROOT)}: {name}" for path in paths for name in overridden(ast.parse(path.read_text()))]
    assert found == [], "declare each: `name: ClassVar[type] = ...`"


def test_options_have_names_and_types() -> None:
    public = {getattr(wgpy, name).__module__ for name in wgpy._HOME_OF}
    found = {
        name
        for path in ROOT.rglob("*.py")
        if "adapters" in path.parts or ".".join(("wgpy", *path.relative_to(ROOT).with_suffix("").parts)) in public
        for name in untyped_options(ast.parse(path.read_text()))
    }
    assert found == PASSED_ON, "name each parameter, instead of **options: Any"


def _is_inherited(path: Path, name: str) -> bool:
    """Whether a base has a property or a field of that name."""
    kind, _, attribute = name.partition(".")
    module = import_module(".".join(("wgpy", *path.relative_to(ROOT).with_suffix("").parts)))
    return bool(attribute) and any(
        hasattr(base, attribute) or attribute in vars(base).get("__annotations__", {})
        for base in getattr(module, kind).__mro__[1:]
    )


def test_undeclared_names_are_found() -> None:
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
    def act(self, **options: Any):
        pass
class _Hidden:
    def __init__(self):
        self.bare = 1
class Model(Base):
    declared: ClassVar[Setting] = Setting()
    setting = Setting()
"""
    assert list(undeclared(ast.parse(text))) == ["log", "Shown.bare"]
    assert list(overridden(ast.parse(text))) == ["Model.setting"]
    assert list(untyped_options(ast.parse(text))) == ["Shown.act"]
