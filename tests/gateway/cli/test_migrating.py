"""The commands of the page on migrating, as it has them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import forked_wgpy
from wgpy.config.wgquick import parse

Shell = Callable[..., str]

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "gateway-migrating.md"
INDEX = """V\t350101000000Z\t\t01\tunknown\t/CN=server
V\t350101000000Z\t\t02\tunknown\t/CN=alice
R\t350101000000Z\t250101000000Z\t03\tunknown\t/CN=mallory
V\t350101000000Z\t\t04\tunknown\t/C=DE/CN=bob@example.org/emailAddress=x@example.org
"""
# As in the AWS CLI Command Reference: describe-client-vpn-authorization-rules, describe-client-vpn-routes.
RULES = {
    "AuthorizationRules": [
        {"ClientVpnEndpointId": "cvpn-endpoint-1", "GroupId": "", "AccessAll": True, "DestinationCidr": "0.0.0.0/0"},
        {"GroupId": "S-1-5-21-1-2-3-1104", "AccessAll": False, "DestinationCidr": "10.0.0.0/16"},
    ]
}
ROUTES = {"Routes": [{"DestinationCidr": "10.0.0.0/16", "TargetSubnet": "a"}, {"DestinationCidr": "10.0.0.0/16"}]}


def commands(section: str) -> list[str]:
    text = PAGE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs scripts in a directory where the gateway is, too."""
    environment = {
        **os.environ,
        "PATH": f"{Path(forked_wgpy()).parent}:{os.environ['PATH']}",
        "WGPY_GATEWAY": str(tmp_path / "gateway"),
        "WGPY_GATEWAY_KEY": str(tmp_path / "key"),
    }

    def run(*scripts: str) -> str:
        command = ["sh", "-euc", "\n".join(scripts)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def exported(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell("wgpy gateway export"))
    return found


def test_the_commands_for_openvpn(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/index.txt").write_text(INDEX)
    shell(*commands("From OpenVPN"))
    found = exported(shell)
    assert [user["name"] for user in found["users"]] == ["alice", "bob@example.org"]
    assert [device["name"] for device in found["devices"]] == ["alice", "bob@example.org"]
    config = parse((tmp_path / "clients" / "alice.conf").read_text()).config
    assert (*map(str, config.peers[0].allowed_ips),) == ("10.99.0.0/24", "10.50.0.0/16")
    assert config.dns == ("10.50.0.53",)


def test_the_commands_for_aws_client_vpn(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    (tmp_path / "routes.json").write_text(json.dumps(ROUTES))
    said = shell(*commands("From AWS Client VPN"))
    assert said.startswith("allowed: 10.0.0.0/16")
    found = exported(shell)
    rules = [(rule["destination"], rule["everyone"], rule["groups"]) for rule in found["rules"]]
    assert rules == [("0.0.0.0/0", True, []), ("10.0.0.0/16", False, ["S-1-5-21-1-2-3-1104"])]
    assert [route["network"] for route in found["routes"]] == ["10.0.0.0/16"]
    assert (tmp_path / "alice-laptop.conf").exists()
