"""Tests marked `root` say loudly when they cannot run; with WGPY_NO_SKIPS=1 that is a failure."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.support.endings import heed_signals, ignore_signals
from tests.support.tools import missing

# The tests start wgpy some thousand times. Without bytecode, compiling its modules would be half of what each start
# takes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("default", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("brief", deadline=None, derandomize=True, max_examples=10)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("default")


def pytest_configure() -> None:
    heed_signals()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without collecting garbage: nearly all that is made lives to the end, and looking for it takes a
    third of the time. The tests' own garbage is collected as ever."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_keyboard_interrupt() -> None:
    ignore_signals()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if lacking := missing():
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason=f"needs {lacking}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"skipped: {skipped}", yellow=skipped > 0)
    if skipped and os.environ.get("WGPY_NO_SKIPS"):
        terminalreporter.write_line("WGPY_NO_SKIPS is set, and tests were skipped: that is a failure", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("WGPY_NO_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
