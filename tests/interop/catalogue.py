"""The scenarios of this directory, read from its files: what each expects, and where that is written.

A scenario is a test with the mark `scenario`, whose arguments are its sources. Nothing is imported, so that the
documentation can be built where pytest is not installed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_DIRECTORY = Path(__file__).parent
_ORDER = ("test_0_starting", "test_peers", "test_netns_*", "test_sticky_*", "test_wire_*")


class Scenario(NamedTuple):
    """One of them; `name` is the test's without `test_`."""

    name: str
    group: str  # the first line of its module's docstring
    expected: str
    sources: tuple[str, ...]
    is_slow: bool

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")


def scenarios() -> list[Scenario]:
    """All, in the order in which the page tells them."""
    paths = [path for pattern in _ORDER for path in sorted(_DIRECTORY.glob(f"{pattern}.py"))]
    assert set(paths) >= {path for path in _DIRECTORY.glob("test_*.py") if "mark.scenario" in path.read_text()}
    return [scenario for path in paths for scenario in _scenarios(ast.parse(path.read_text()))]


def _scenarios(module: ast.Module) -> Iterator[Scenario]:
    group = (ast.get_docstring(module) or "").partition("\n")[0]
    for function in module.body:
        if isinstance(function, ast.FunctionDef):
            marks = dict(_marks(function))
            if "scenario" in marks:
                expected = inspect.cleandoc(ast.get_docstring(function) or "")
                name = function.name.removeprefix("test_")
                yield Scenario(name, group, expected, marks["scenario"], "slow" in marks)


def _marks(function: ast.FunctionDef) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The names of its marks, and their arguments that are texts."""
    for decorator in function.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        arguments = decorator.args if isinstance(decorator, ast.Call) else []
        if isinstance(called, ast.Attribute):
            constants = (argument.value for argument in arguments if isinstance(argument, ast.Constant))
            yield called.attr, tuple(value for value in constants if isinstance(value, str))


def page() -> str:
    """The page of the documentation that describes all scenarios."""
    lines = [
        "# What the interop scenarios expect",
        "",
        "Each scenario tests one program: [Test another WireGuard](../how-to/interop.md) says how to run it on yours.",
        "The paper is Jason A. Donenfeld's *WireGuard: Next Generation Kernel Network Tunnel*. The kernel's",
        "files are in `drivers/net/wireguard`, but `netns.sh` is in `tools/testing/selftests/wireguard`.",
    ]
    group = ""
    for scenario in scenarios():
        if scenario.group != group:
            group = scenario.group
            lines += ["", f"## {group.rstrip('.')}"]
        slow = "\n\nThis takes minutes, so it runs only with `--slow`." if scenario.is_slow else ""
        lines += ["", f"### `{scenario.name}`", "", f"{scenario.expected}{slow}", ""]
        lines.append(f"Written in: {'; '.join(scenario.sources)}.")
    return "\n".join(lines) + "\n"
