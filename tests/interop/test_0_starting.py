"""The program under test starts and ends as wireguard-go does.

If it does not, the kit runs nothing else.
"""

from __future__ import annotations

import pytest

from tests.interop.conftest import Cable, kit_of
from tests.support.peers import WGPY, Userspace, wait_for

pytestmark = pytest.mark.root


@pytest.mark.scenario("wireguard-go main.go", "https://www.wireguard.com/xplatform/")
def test_0_it_starts_answers_and_ends(cable: Cable, request: pytest.FixtureRequest) -> None:
    """COMMAND -f INTERFACE makes the interface and answers `wg` on its socket within 15 seconds; SIGTERM ends it.

    When it has ended, its interface and its socket are gone.
    """
    tested = kit_of(request.config).tested
    cable.ours = tested if issubclass(tested, Userspace) else Userspace.called("wgpy", WGPY, {})
    try:
        end = cable.open(cable.left)
    except AssertionError as error:
        request.session.shouldfail = f"nothing else is run, as {error}"
        raise
    run, name = cable.left.namespace.run, cable.left.name
    assert f"interface: {name}" in run("wg", "show", name)
    end.close()
    assert wait_for(lambda: name not in run("ip", "-o", "link"))
    assert "Unable to access interface" in run("wg", "show", name, check=False)
