"""What of pyroute2 is loaded, in a Python of its own."""

from __future__ import annotations

import subprocess
import sys


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout


def test_netlink_loads_only_what_it_uses() -> None:
    links = "from wgpy.net.netlink import Netlink\nNetlink().links('tun')"
    loaded = run(f"{links}\nimport sys\nprint(*sys.modules)").split()
    assert "pyroute2.iproute.linux" in loaded
    assert not {"pyroute2.ndb", "pyroute2.ipdb", "pyroute2.nftables", "pyroute2.plan9"} & set(loaded)


def test_a_program_may_use_all_of_pyroute2_before_and_after_us() -> None:
    assert run(
        "from wgpy.net.netlink import Netlink\n"
        "Netlink().close()\n"
        "import pyroute2\n"
        "from pyroute2 import NDB, WireGuard, netns\n"
        "from pyroute2.netlink.generic.wireguard import WireGuard as same\n"
        "print(pyroute2.NDB is NDB, WireGuard is same, pyroute2.netlink.exceptions, pyroute2.netns is netns)\n"
        "print(hasattr(pyroute2, 'nonesuch'))"
    ).startswith("True True <module 'pyroute2.netlink.exceptions'")
    assert run("import pyroute2\nfrom wgpy.net.netlink import Netlink\nNetlink().close()\nprint(pyroute2.NDB)")
