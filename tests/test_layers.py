"""A module imports only what stands below it, and the core is pure: the rules of ARCHITECTURE.md, kept by this test."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wgpy

ROOT = Path(wgpy.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

# From the bottom up. A module belongs to the row with the longest prefix of its name. It may import from the rows below
# and from its own package, but not from another package in the same row.
LAYERS = [
    ["wgpy.constants", "wgpy.errors", "wgpy.config.redact"],
    ["wgpy.keys", "wgpy.burst", "wgpy.endpoint", "wgpy.fields"],
    ["wgpy.noise", "wgpy.tun.checksum", "wgpy.tun.virtio"],
    ["wgpy.tun.layout"],
    ["wgpy.tun.splitting", "wgpy.tun.merging"],
    ["wgpy.tun.spreading"],
    ["wgpy.tun.gathering"],
    ["wgpy.device"],
    ["wgpy.stack"],
    [
        "wgpy.config.values",
        "wgpy.config.wgquick",
        "wgpy.config.edit",
        "wgpy.config.wg",
        "wgpy.config.clients",
        "wgpy.config.services",
        "wgpy.config.uapi",
    ],
    ["wgpy.system"],
    ["wgpy.net", "wgpy.tun.attach", "wgpy.tun.interface", "wgpy.tun.linux", "wgpy.tun.memory"],
    ["wgpy.configured", "wgpy.datapath", "wgpy.events"],
    ["wgpy.tunnel"],
    ["wgpy.workers"],
    ["wgpy.virtual"],
    ["wgpy.daemon"],
    ["wgpy.rootless"],
    ["wgpy.namespace", "wgpy.userspace", "wgpy.control"],
    ["wgpy.rootless.connect"],
    ["wgpy.relay"],
    ["wgpy.blocking"],
    ["wgpy.adapters"],
    ["wgpy.labs"],
    ["wgpy.gateway.policy"],
    ["wgpy.gateway.store"],
    ["wgpy.gateway.enforcement", "wgpy.gateway.identity"],
    ["wgpy.gateway.service"],
    ["wgpy.gateway.web"],
    ["wgpy.gateway.cli"],
    ["wgpy.gateway"],
    ["wgpy.cli"],
    ["wgpy.config", "wgpy.tun"],  # packages that hold nothing themselves
    ["wgpy"],  # the public names
]
PURE = next(i for i, row in enumerate(LAYERS) if "wgpy.system" in row)  # below: no clock, randomness or I/O
PURE_ABOVE = ("wgpy.gateway.policy",)  # pure as well, and above the rest because nothing else may use it
IMPURE = {
    "asyncio", "fcntl", "io", "logging", "multiprocessing", "os", "pathlib", "pyroute2", "random", "secrets", "select",
    "selectors", "signal", "socket", "subprocess", "sys", "threading", "time", "uvloop",
}  # fmt: skip
# Making a key is the one thing here that needs chance; an error that is a socket.gaierror needs that class.
EXCEPTIONS = {("wgpy.keys", "secrets"), ("wgpy.errors", "socket")}


def layer(module: str) -> int:
    """The height of a module."""
    candidates = [
        (len(prefix), height)
        for height, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if module == prefix or module.startswith(prefix + ".")
    ]
    return max(candidates)[1]


def is_pure(module: str) -> bool:
    """Whether a module must have no clock, randomness, input or output."""
    return layer(module) < PURE or module.startswith(PURE_ABOVE)


def package(module: str) -> str:
    """The part of wgpy that a module belongs to: `wgpy.net` for `wgpy.net.udp`."""
    return ".".join(module.split(".")[:2])


def imports(source: str) -> Iterator[str]:
    """Every module a source imports, wherever it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            # `from wgpy.tun import checksum` imports wgpy.tun.checksum
            yield from {
                f"{module}.{alias.name}" if f"{module}.{alias.name}" in MODULES else module for alias in node.names
            }


def test_modules_above_the_daemon_use_only_control_for_running_interfaces() -> None:
    """`wgpy.control` knows who serves an interface: a daemon of any kind, or the kernel."""
    above = {module: path for module, path in MODULES.items() if layer(module) > layer("wgpy.daemon")}
    assert "uapi_client.read(" in above.pop("wgpy.control").read_text()
    uses = {
        (module, name)
        for module, path in above.items()
        for name in re.findall(r"uapi_client(?:\.| import )(\w+)", path.read_text())
    }
    assert {name for _, name in uses} == {"DIRECTORY"}, uses


def breaches(module: str, source: str) -> list[str]:
    """What a source imports that its module may not."""
    height = layer(module)
    found = []
    for imported in imports(source):
        if imported == "wgpy.__version__" or (
            imported == "wgpy" and module.startswith(("wgpy.cli", "wgpy.gateway", "wgpy.system.interpreter"))
        ):
            continue  # the version
        if imported.split(".")[0] == "wgpy":
            if module.startswith(PURE_ABOVE) and not is_pure(imported):
                found.append(f"{module} is pure and imports {imported}")
            if layer(imported) > height:
                found.append(f"{module} imports {imported}, which stands above it")
            elif layer(imported) == height and package(imported) != package(module):
                found.append(f"{module} imports {imported}, which stands beside it")
        elif is_pure(module) and imported.split(".")[0] in IMPURE and (module, imported) not in EXCEPTIONS:
            found.append(f"{module} is pure and imports {imported}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_keeps_to_its_layer(module: str) -> None:
    assert breaches(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("wgpy.noise.handshake", "from wgpy.device.peer import Peer"),
        ("wgpy.device.device", "from wgpy.tun.linux import LinuxTun"),
        ("wgpy.device.device", "def f():\n    import time"),
        ("wgpy.device.peer", "from os import urandom"),
        ("wgpy.device.device", "if TYPE_CHECKING:\n    from wgpy.tunnel import Tunnel"),
        ("wgpy.keys", "import random"),
        ("wgpy.burst", "import secrets"),
        ("wgpy.config.wgquick", "import socket"),
        ("wgpy.tunnel", "from wgpy.daemon import quick"),
        ("wgpy.tun.splitting", "from wgpy.tun import linux"),
        ("wgpy.tun.linux", "from wgpy.net.udp import UdpSockets"),
        ("wgpy.net.udp", "from wgpy.tun.attach import attach"),
        ("wgpy.system.refusals", "from wgpy.tun import attach"),
        ("wgpy.net.netlink", "from wgpy.daemon import firewall"),
        ("wgpy.tun.splitting", "from wgpy.device.ip import parse"),
        ("wgpy.labs.lab", "from wgpy.gateway.policy.rules import decide"),
        ("wgpy.gateway.policy.rules", "import time"),
        ("wgpy.gateway.policy.rules", "from wgpy import control"),
        ("wgpy.gateway.store.database", "from wgpy.gateway.enforcement import nft"),
        ("wgpy.gateway.service.run", "from wgpy.gateway.web import server"),
        ("wgpy.gateway.web.app", "from wgpy.gateway.cli import common"),
    ],
)
def test_a_breach_is_found(module: str, source: str) -> None:
    assert breaches(module, source)


def test_no_module_is_longer_than_500_lines() -> None:
    assert {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 500} == {}


# What the extra `gateway` brings: only `wgpy gateway` may load it, and only where it is used.
OF_THE_GATEWAY = {
    "alembic", "argon2", "fastapi", "httpx2", "jinja2", "joserfc", "prometheus_client", "psycopg", "pydantic", "pyotp",
    "sansldap", "segno", "sqlalchemy", "starlette", "uvicorn", "webauthn",
}  # fmt: skip


def loaded_by(program: str) -> set[str]:
    """The modules that are loaded in a new process when a program has run there."""
    program += "\nimport sys\nprint('loaded:', *sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return {*output.rpartition("loaded:")[2].split()}


def test_importing_wgpy_loads_nothing_heavy() -> None:
    heavy = {"numpy", "pyroute2", "nacl", "uvloop", "cryptography", "asyncio", "wgpy.device"}
    assert not (heavy | OF_THE_GATEWAY) & loaded_by("import wgpy")


def test_a_running_tunnel_loads_neither_netlink_nor_the_cookie_cipher() -> None:
    loaded = loaded_by("import wgpy\nwgpy.Tunnel\nwgpy.Device\nwgpy.LinuxTun")
    assert not {"pyroute2", "nacl", "uvloop"} & loaded


def test_the_daemon_loads_nothing_of_the_gateway() -> None:
    loaded = loaded_by(
        "from wgpy.daemon import apply, process, quick, save, uapi_server\nfrom wgpy.workers import worker"
    )
    assert "wgpy.tunnel" in loaded
    assert not OF_THE_GATEWAY & loaded
    assert not {name for name in loaded if name.startswith("wgpy.gateway")}


def test_the_help_of_the_gateway_loads_none_of_its_libraries() -> None:
    loaded = loaded_by("from wgpy.cli import main\ntry: main(['gateway', '-h'])\nexcept SystemExit: pass")
    assert "wgpy.gateway.cli.run" in loaded
    assert not ({"asyncio", "cryptography", "numpy", "pyroute2"} | OF_THE_GATEWAY) & loaded
