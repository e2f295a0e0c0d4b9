"""A directory that all tests of this package ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.identity.corp import corp
from tests.gateway.identity.slapd import Slapd


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """OpenLDAP with people and groups."""
    with corp(tmp_path_factory.mktemp("slapd") / "corp") as running:
        yield running
