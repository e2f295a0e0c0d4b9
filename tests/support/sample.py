"""A plugin for pytest that runs only the first and the last case of each test that has parameters.

    python -m pytest -p tests.support.sample

The cases are about our code, and all of them run on the Python of `make test`. Another Python has to show that this
code runs there, too, for which two cases of a test are enough.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)  # after -m has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {item for cases in tests.values() for item in (cases[0], cases[-1])}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]
