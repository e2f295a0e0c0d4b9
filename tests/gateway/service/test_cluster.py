"""Two gateways on one PostgreSQL, in namespaces with a client: one is killed, the database restarted, or cut off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name, wait_for
from tests.support.postgres import PASSWORD, postgres
from wgpy.labs.netns import bring_up, ip, join

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster")]
SERVICE = "192.0.2.1"  # where clients find a gateway; the test moves it, as DNS would
SERVER = "10.7.0.2"
HOSTS = {"db": "10.9.0.1", "a": "10.9.0.2", "b": "10.9.0.3", "client": "10.9.0.10", "server": "10.9.0.20"}
URL = f"postgresql://postgres@{HOSTS['db']}/postgres?sslmode=disable"
ENVIRONMENT = {**os.environ, "PGPASSWORD": PASSWORD}


class Cluster:
    """Everything on one switch. Each gateway has its own directory, and the same key."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.directory = directory
        self._wgpy = forked_wgpy()
        switch = stack.enter_context(Namespace())
        self.spaces = {name: stack.enter_context(Namespace()) for name in HOSTS}
        switch.run("ip", "link", "add", "br0", "up", "type", "bridge")
        for name, address in HOSTS.items():
            join(switch, f"to-{name}", self.spaces[name], "lan")
            switch.run("ip", "link", "set", f"to-{name}", "master", "br0", "up")
            bring_up(self.spaces[name], "lan", f"{address}/24")
        self.spaces["server"].run("ip", "address", "add", SERVER, "dev", "lo")
        for name in "ab":
            self.spaces[name].run("ip", "address", "add", SERVICE, "dev", "lo")
            ip("-n", self.spaces[name].name, "route", "add", f"{SERVER}/32", "via", HOSTS["server"])
        self.postgres = stack.enter_context(postgres(self.spaces["db"], HOSTS["db"]))
        self.interfaces = {name: fresh_name() for name in "ab"}
        pool = f"--pool 10.99.0.0/24 --interface {self.interfaces['a']} --data-plane wgpy"
        self.gateway("a", f"init --host {SERVICE} {pool} --database {URL}")
        shutil.copy(directory / "a.key", directory / "b.key")
        self.gateway("b", f"join {URL}")
        self.gateway("a", "route add 10.7.0.0/24")
        self.gateway("a", "group add staff")
        self.gateway("a", "rule add server 10.7.0.0/24 --group staff")
        self.gateway("a", "user add alice --group staff")
        self.gateway("a", f"device add phone --user alice --output {directory / 'phone.conf'}")
        self.running = {name: self.run(name) for name in "ab"}
        self.move_to("a")
        self.name = fresh_name()
        conf = (directory / "phone.conf").rename(directory / f"{self.name}.conf")
        self.spaces["client"].run(forked_wgpy(), "up", str(conf))

    def gateway(self, node: str, words: str, *, check: bool = True) -> str:
        """What a command prints on a gateway's host."""
        return self.spaces[node].run(self._wgpy, *self._command(node, *words.split()), env=ENVIRONMENT, check=check)

    def run(self, node: str) -> subprocess.Popen[str]:
        command = self._command(node, "run", "--node", node, "--interface", self.interfaces[node])
        with (self.directory / f"{node}.log").open("a") as log:
            return self.spaces[node].popen(*WGPY, *command, stdout=log, stderr=log, env=ENVIRONMENT)

    def move_to(self, node: str) -> None:
        """The name that clients know leads to this gateway from now on."""
        self.spaces["client"].run("ip", "route", "replace", SERVICE, "via", HOSTS[node])

    def look_up(self) -> None:
        """The client looks the name up again."""
        client = self.spaces["client"]
        gateway = client.run(forked_wgpy(), "show", self.name, "peers").strip()
        client.run(forked_wgpy(), "set", self.name, "peer", gateway, "endpoint", f"{SERVICE}:51820")

    def reaches(self) -> bool:
        """Whether the client reaches the server now."""
        return "1 received" in self.spaces["client"].run("ping", "-c1", "-W1", SERVER, check=False)

    @contextmanager
    def load(self) -> Iterator[subprocess.Popen[str]]:
        """The client pings the server twenty times a second."""
        ping = self.spaces["client"].popen(
            "ping", "-i0.05", SERVER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield ping
        finally:
            ping.kill()
            ping.wait()

    def sessions(self) -> list[tuple[str, str, float]]:
        """The sessions under way: their node, id, and when they began."""
        found = self.postgres.sql("SELECT node, id, started_at FROM sessions WHERE ended_at IS NULL")
        return [(node, name, float(at)) for node, name, at in (line.split("|") for line in found.splitlines())]

    def log(self, node: str) -> str:
        """What a gateway has said, without what asks directories, which by itself finds that the database is gone."""
        lines = (self.directory / f"{node}.log").read_text().splitlines(keepends=True)
        return "".join(line for line in lines if "directories:" not in line)

    def table(self, node: str) -> str:
        return self.spaces[node].run("nft", "list", "table", "inet", f"wgpy-gateway-{self.interfaces[node]}")

    def status(self, node: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.gateway(node, f"status --json --node {node}", check=False))
        return found

    def _command(self, node: str, *words: str) -> tuple[str, ...]:
        places = ("--directory", str(self.directory / node), "--key", str(self.directory / f"{node}.key"))
        return ("gateway", *words, *places)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack, tmp_path_factory.mktemp("cluster"))


def test_a_rule_that_is_changed_at_one_gateway_is_in_force_at_the_other(cluster: Cluster) -> None:
    assert wait_for(cluster.reaches, 30)
    assert [node for node, _, _ in cluster.sessions()] == ["a"]
    for node in "ab":
        assert "10.7.0.0" in cluster.table(node)
    cluster.gateway("b", "rule add other 10.8.0.0/24 --group staff")
    assert wait_for(lambda: all("10.8.0.0" in cluster.table(node) for node in "ab"), 10)
    nodes = {node["name"]: node["sessions"] for node in cluster.status("b")["nodes"]}
    assert nodes == {"a": 1, "b": 0}
    assert "node a runs already" in cluster.gateway("b", "run --node a", check=False)


def test_postgresql_restarted_under_load_interrupts_no_session(cluster: Cluster) -> None:
    assert wait_for(cluster.reaches, 30)
    before = cluster.sessions()
    with cluster.load():
        cluster.postgres.stop(signal.SIGQUIT)
        assert wait_for(lambda: "trying again" in cluster.log("a") and "trying again" in cluster.log("b"), 30)
        assert cluster.reaches()
        cluster.postgres.start()
        assert wait_for(lambda: "all is well again" in cluster.log("a") and "all is well" in cluster.log("b"), 60)
    assert cluster.reaches()
    assert cluster.sessions() == before
    assert wait_for(lambda: cluster.status("a")["healthy"] and cluster.status("b")["healthy"], 30)


def test_a_gateway_that_is_cut_off_from_the_database_opens_nothing_until_it_is_back(cluster: Cluster) -> None:
    assert wait_for(cluster.reaches, 30)
    said = cluster.log("a").count("trying again")
    firewall = "table inet cut { chain out { type filter hook output priority 0; tcp dport 5432 drop; }; }"
    cluster.spaces["a"].run("nft", firewall)
    try:
        assert wait_for(lambda: cluster.log("a").count("trying again") > said, 60)
        assert cluster.reaches(), "the session that is under way goes on"
        cluster.gateway("b", "session terminate phone")
        cluster.gateway("b", "device disable phone")
        assert cluster.reaches(), "nobody can tell it"
        assert cluster.log("a").count("trying again") <= said + 3
    finally:
        cluster.spaces["a"].run("nft", "delete", "table", "inet", "cut")
    assert wait_for(lambda: not cluster.reaches(), 60)
    assert cluster.sessions() == []
    cluster.gateway("b", "device enable phone")
    assert wait_for(cluster.reaches, 30)
    assert len(cluster.sessions()) == 1


def test_the_clients_of_a_killed_gateway_are_at_the_other_with_the_same_session(cluster: Cluster) -> None:
    assert wait_for(cluster.reaches, 30)
    ((node, name, began),) = cluster.sessions()
    assert node == "a"
    with cluster.load():
        gateway = cluster.running["a"]
        gateway.kill()
        gateway.wait()
        cluster.spaces["a"].run("ip", "link", "set", "lan", "down")
        cluster.move_to("b")
        cluster.look_up()
        assert wait_for(lambda: [each[0] for each in cluster.sessions()] == ["b"], 60)
        assert wait_for(cluster.reaches, 10)
    assert cluster.sessions() == [("b", name, began)]
    assert cluster.postgres.sql(f"SELECT count(*) FROM sessions WHERE id = '{name}'") == "1"
    cluster.spaces["a"].run("ip", "link", "set", "lan", "up")
    cluster.running["a"] = cluster.run("a")
    assert wait_for(lambda: cluster.status("a")["healthy"], 60)
    assert cluster.sessions() == [("b", name, began)]
    assert "10.99.0.2 timeout" not in cluster.table("a").replace("\n", " "), "its kernel had it open"
