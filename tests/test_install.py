"""`make install` and `make uninstall`, into a directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from wgpy import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = sysconfig.get_path("purelib")


def make(target: str, directory: Path | str, prefix: str = "/opt", **changes: str) -> str:
    """Without the network: pip finds what it builds with in the tests' own environment, and installs wgpy alone."""
    offline = {
        "PYTHONPATH": PACKAGES,
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip takes 0 for yes in this and the next
        "PIP_NO_COMPILE": "0",
    }
    command = ["make", target, f"DESTDIR={directory}", f"PREFIX={prefix}", f"PYTHON={sys.executable}"]
    environment = {**os.environ, **offline, **changes}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, umask=0o077, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def version(directory: Path) -> str:
    return subprocess.run([directory / "opt/bin/wgpy", "--version"], capture_output=True, text=True, check=True).stdout


def files(directory: Path) -> set[str]:
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and "opt/lib/wgpy" not in str(path)
    }


def test_what_is_installed_runs_and_can_be_removed(tmp_path: Path) -> None:
    target = tmp_path / "root"
    stranger = target / "opt/bin/stranger"
    stranger.parent.mkdir(parents=True)
    stranger.touch()
    make("install", target)
    assert files(target) == {
        "opt/bin/stranger",
        "opt/bin/wgpy",
        "opt/lib/systemd/system/wgpy@.service",
        "opt/lib/systemd/system/wgpy-quick@.service",
        "opt/lib/systemd/system/wgpy-gateway.service",
        "opt/share/man/man8/wgpy.8",
        "opt/share/man/man5/wgpy.conf.5",
        "opt/share/bash-completion/completions/wgpy",
        "opt/share/zsh/site-functions/_wgpy",
        "opt/share/fish/vendor_completions.d/wgpy.fish",
    }
    assert "ExecStart=/opt/bin/wgpy run %i\n" in (target / "opt/lib/systemd/system/wgpy@.service").read_text()
    assert (target / "opt/share/man/man8/wgpy.8").read_text().startswith(".TH ")

    installed = (target / "opt").rglob("*")
    assert not [path for path in installed if path != stranger and not path.stat().st_mode & 0o004], "for everybody"

    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "wgpy").mkdir(parents=True)
    (elsewhere / "wgpy/__init__.py").write_text("raise SystemExit('taken from the current directory')")
    link = tmp_path / "link"
    link.symlink_to(target / "opt/bin/wgpy")
    for program in (target / "opt/bin/wgpy", link):
        said = subprocess.run([program, "--version"], cwd=elsewhere, capture_output=True, text=True, check=True).stdout
        assert said == f"wgpy {__version__}\n"

    make("uninstall", target)
    assert files(target) == {"opt/bin/stranger"}
    assert not list(target.glob("opt/lib/wgpy*"))


def test_a_new_version_replaces_the_old_only_when_it_is_complete(tmp_path: Path) -> None:
    """The first is installed where only root can run it, as if Python were in root's own home directory."""
    program, library = tmp_path / "opt/bin/wgpy", tmp_path / "opt/lib/wgpy"
    tmp_path.chmod(0o700)
    said = make("install", "", f"{tmp_path}/opt")
    assert ("warning: only root can run it: " in said) is (os.geteuid() == 0)
    old = library.resolve()
    daemon = subprocess.Popen(
        [old / "bin/python", "-I", "-c", "input(); import wgpy.cli.documents; print(wgpy.cli.documents.__file__)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    unit = tmp_path / "opt/lib/systemd/system/wgpy@.service"
    unit.write_text("as it was\n")
    with pytest.raises(subprocess.CalledProcessError):
        make("install", tmp_path, PYTHONPATH="")  # so there is nothing to build wgpy with
    assert library.resolve() == old
    assert version(tmp_path) == f"wgpy {__version__}\n"
    assert unit.read_text() == "as it was\n"
    assert [path for path in tmp_path.glob("opt/lib/wgpy*") if not path.is_symlink()] == [old], "nothing is left of it"

    make("install", tmp_path)
    assert library.resolve() != old
    assert version(tmp_path) == f"wgpy {__version__}\n"
    assert unit.read_text() != "as it was\n"
    assert program.stat().st_mode & 0o777 == 0o755
    imported, _ = daemon.communicate("go on\n")
    assert imported.startswith(str(old)), "whoever runs the old version still finds all of it"
