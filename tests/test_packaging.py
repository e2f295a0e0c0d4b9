"""`pip install .` installs Python and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_the_wheel_is_pure_python_with_the_command_and_the_type_marker(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert b"wgpy = wgpy.cli:main" in archive.read(entry_points)
    assert "wgpy/py.typed" in names
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "wgpy").rglob("*.py")}
    labs = {f"wgpy/{path.relative_to(ROOT)}" for path in (ROOT / "examples").rglob("*.py")}
    assert package | labs == {name for name in names if name.endswith(".py")}
    assert "wgpy/examples/site_to_site/paris.conf" in names
    files = [path for path in (ROOT / "wgpy/gateway/web").rglob("*") if path.is_file()]
    pages = {str(path.relative_to(ROOT)) for path in files if path.suffix not in (".py", ".pyc")}
    assert {"wgpy/gateway/web/templates/base.html", "wgpy/gateway/web/static/wgpy.css"} <= pages <= set(names)


def test_runtime_and_test_requirements_are_pinned_apart() -> None:
    """And within the ranges that users get: so `make demo` installs what they would have, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {}
    for requirement in map(Requirement, (ROOT / "requirements.txt").read_text().splitlines()[1:]):
        if requirement.marker is None or requirement.marker.evaluate():
            pinned[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    for dependency in map(Requirement, project["dependencies"]):
        assert dependency.specifier.contains(pinned[canonicalize_name(dependency.name)])


def test_the_pinned_requirements_are_complete() -> None:
    """They are installed without looking for more. What a dependency names for other uses than ours is left out."""
    left_out = {
        "py-cpuinfo2",
        "playwright",
    }  # where pytest-benchmark runs on, and of a browser that axe-core comes with
    named = [
        Requirement(line)
        for path in ROOT.glob("requirements*.txt")
        if path.name not in ("requirements-docs.txt", "requirements-types.txt")  # of environments of their own
        for line in path.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    pinned = {canonicalize_name(requirement.name) for requirement in named}
    missing = {}
    for requirement in named:
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            needed = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:  # an environment without the fuzzer, say
            continue
        for each in map(Requirement, needed):
            extras = ["", *requirement.extras]
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
                missing[canonicalize_name(each.name)] = requirement.name
    assert {name: by for name, by in missing.items() if name not in pinned | left_out} == {}


@pytest.mark.parametrize("minor", range(11, 16))
def test_every_python_is_declared_and_gets_one_version_of_each_package(minor: int) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Programming Language :: Python :: 3.{minor}" in project["classifiers"]
    environment = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.1", "platform_machine": "x86_64"}
    names = []
    for path in ("requirements.txt", "requirements-gateway.txt", "requirements-dev.txt", "requirements-fuzz.txt"):
        for line in (ROOT / path).read_text().splitlines()[1:]:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                names.append(canonicalize_name(requirement.name))
    assert len(names) == len(set(names))
    assert ("atheris" in names) is (minor < 15)  # there is no wheel yet
