"""The portal's tests use SQLite; what depends on the database is tried on PostgreSQL as well, by `test_links`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.conftest import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Where databases can be made."""
    return lambda name: tmp_path / f"{name}.db"
