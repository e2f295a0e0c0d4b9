"""`pip install .` installs Python and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

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
