"""Samba as a domain controller, which answers as Microsoft's do: with its rule for groups in groups, too."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.identity.authority import Authority
from tests.support.netns import in_fresh_namespace
from tests.support.tools import needs
from wgpy.gateway.identity.directory import Unavailable
from wgpy.gateway.identity.ldap.people import Denied, People
from wgpy.gateway.policy.ldap import ACTIVE_DIRECTORY, Settings
from wgpy.gateway.policy.people import Person
from wgpy.labs.traffic import wait_for

SEARCHER, PASSWORD = "vpn@corp.example", "Se3rch-Passw0rd"
SETTINGS = """
    bind interfaces only = yes
    interfaces = lo
    server services = ldap
    pid directory = {directory}
    ncalrpc dir = {directory}/ncalrpc
    log file = {directory}/log
    tls certfile = {certificate}
    tls keyfile = {key}
    tls cafile = {ca}
"""


class Domain:
    """A domain controller that runs on this namespace's `lo`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority.root(directory / "ca")
        signed = self.authority.sign("/CN=localhost", "subjectAltName = DNS:localhost\n", key="rsa")
        signed.key.chmod(0o600)
        self._tool(
            "domain", "provision", "--realm=CORP.EXAMPLE", "--domain=CORP", "--server-role=dc", "--dns-backend=NONE",
            "--adminpass=Adm1n-Passw0rd", "--host-name=dc1", "--host-ip=127.0.0.1", f"--targetdir={directory}",
        )  # fmt: skip
        self.settings = directory / "etc" / "smb.conf"
        more = SETTINGS.format(
            directory=directory, certificate=signed.certificate, key=signed.key, ca=self.authority.signed.certificate
        )
        lines = [line for line in self.settings.read_text().splitlines() if "server services" not in line]
        self.settings.write_text("\n".join(lines).replace("[global]", f"[global]{more}", 1))
        self.change("user", "create", "vpn", PASSWORD)
        self.change("user", "create", "alice", "Al1ce-Passw0rd", "--mail-address=alice@corp.example")
        for name in ("Staff", "Everyone", "Loop", "Nobody"):
            self.change("group", "add", name)
        for group, member in (("Staff", "alice"), ("Everyone", "Staff"), ("Loop", "Everyone"), ("Everyone", "Loop")):
            self.change("group", "addmembers", group, member)

    def change(self, *command: str) -> None:
        """Change something as an administrator."""
        self._tool(*command, "-s", str(self.settings), "-H", str(self.directory / "private" / "sam.ldb"))

    @contextmanager
    def running(self) -> Iterator[None]:
        command = ["samba", "--interactive", "--model=single", "-s", str(self.settings)]
        with open(self.directory / "out", "w") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.PIPE)  # it ends with that
            try:
                wait_for(self._answers, 30)
                yield
            finally:
                server.terminate()
                server.wait(10)

    def open(self, **other: Any) -> People:
        settings = {
            **ACTIVE_DIRECTORY, "servers": ("ldaps://localhost",), "base": "dc=corp,dc=example", "bind_dn": SEARCHER,
            "ca": self.authority.pem(), **other,
        }  # fmt: skip
        return People("ad", Settings(**settings), PASSWORD)

    def _answers(self) -> bool:
        try:
            self.open().probe()
        except Unavailable:
            return False
        return True

    def _tool(self, *command: str) -> None:
        done = subprocess.run(["samba-tool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def names(person: object) -> set[str]:
    assert isinstance(person, Person), person
    return {name for name in person.groups if "=" not in name}


@pytest.mark.root
@needs("samba", "samba-tool")
@in_fresh_namespace
def test_a_domain_controller(tmp_path: Path) -> None:
    domain, now, right = Domain(tmp_path), time.time(), "Al1ce-Passw0rd"
    with domain.running():
        alice = domain.open().sign_in("alice", right, now)
        assert isinstance(alice, Person)
        assert (alice.name, alice.email) == ("alice", "alice@corp.example")
        assert names(alice) >= {"Staff", "Everyone", "Loop", "Domain Users", "Users"}  # the last two by the primary one
        assert "Nobody" not in alice.groups
        assert "CN=Staff,CN=Users,DC=corp,DC=example" in alice.groups
        assert domain.open().check([alice.subject or "", "x"], now)[alice.subject or ""] == alice
        for other in ({"servers": ("ldap://localhost",)}, {"login": "userPrincipalName"}):
            name = "alice@corp.example" if "login" in other else "alice"
            found = domain.open(**other).sign_in(name, right, now)
            assert isinstance(found, Person)
            assert (found.subject, found.groups) == (alice.subject, alice.groups)
        for way in ("member", "memberof"):
            assert names(domain.open(membership=way).sign_in("alice", right, now)) == {"Staff", "Everyone", "Loop"}
        for name, password in (("alice", "wrong"), ("nobody", right), ("ali*", right), ("alice", "")):
            assert isinstance(domain.open().sign_in(name, password, now), Denied)
        with pytest.raises(Unavailable, match="strong auth required"):
            domain.open(servers=("ldap://localhost",), plain=True).sign_in("alice", right, now)
        domain.change("group", "removemembers", "Everyone", "Staff")
        domain.change("user", "setexpiry", "alice", "--days=0")
        time.sleep(1.1)
        assert domain.open().check([alice.subject or ""], time.time() + 5) == {
            alice.subject: Denied("the account has expired")
        }
        domain.change("user", "setexpiry", "alice", "--noexpiry")
        after = domain.open().check([alice.subject or ""], now)
        assert names(after[alice.subject or ""]) >= {"Staff", "Domain Users"}
        assert "Everyone" not in names(after[alice.subject or ""])
        domain.change("user", "disable", "alice")
        assert domain.open().check([alice.subject or ""], now) == {alice.subject: Denied("the account is disabled")}
        assert isinstance(domain.open().sign_in("alice", right, now), Denied)
        domain.change("user", "delete", "alice")
        assert isinstance(domain.open().check([alice.subject or ""], now)[alice.subject or ""], Denied)
