"""The image and the pods of examples/containers, as far as they can be tried without a container runtime."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.adapters.conftest import PAGE, Web
from tests.adapters.conftest import web as web
from tests.interop.conftest import Cable
from tests.namespace.conftest import Server
from tests.namespace.conftest import server as server
from tests.support import pod
from tests.support.peers import wait_for
from tests.support.seccomp import refuse_namespaces
from wgpy.cli.commands import parser

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "examples/containers"
PACKAGES = sysconfig.get_path("purelib")

pytestmark = pytest.mark.xdist_group("image")


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions with their arguments."""
    lines = (DIRECTORY / "Containerfile").read_text().splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")]


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DIRECTORY / name).read_text())
    return found


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's /opt: what the first stage makes of the files that it copies. pip may not use the network here."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    directory = tmp_path_factory.mktemp("image")
    (directory / "opt").mkdir()
    build = instructions()[: [word for word, _ in instructions()].index("FROM", 1)]
    for word, rest in build:
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, directory / "src" / (source if target == "./" else target))
        elif word == "WORKDIR":
            (directory / "src").mkdir()
        elif word == "RUN":
            offline = dict.fromkeys(("PIP_NO_DEPS", "PIP_NO_INDEX"), "1")
            offline |= dict.fromkeys(("PIP_NO_BUILD_ISOLATION", "PIP_NO_COMPILE"), "0")  # pip takes 0 for yes in these
            offline |= {"PYTHONPATH": PACKAGES}
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            script = f"mount --bind {directory}/opt /opt && cd {directory}/src && {rest}"
            command = ["unshare", "--mount", "sh", "-c", script]
            subprocess.run(command, env={**os.environ, **offline, "PATH": path}, check=True)
    return directory / "opt"


@pytest.mark.root
def test_the_image_has_what_the_containerfile_names(opt: Path) -> None:
    said = dict(instructions())
    assert said["COPY"] == "--from=build /opt/wgpy /opt/wgpy"
    (entry,) = json.loads(said["ENTRYPOINT"])
    assert os.access(opt / Path(entry).relative_to("/opt"), os.X_OK)
    assert said["ENV"].startswith(f"PATH={Path(entry).parent}:")
    for word, rest in instructions():
        if word == "RUN":
            for command in re.split(r" && ", rest):
                program = Path(shlex.split(command)[0])
                assert shutil.which(program) or (opt / program.relative_to("/opt")).exists()


@pytest.mark.parametrize("name", ["sidecar.yaml", "proxy.yaml"])
def test_the_pods_manifest_is_consistent(name: str) -> None:
    found = manifest(name)
    (sidecar,) = found["spec"]["initContainers"]
    parser().parse_args(sidecar["args"])
    assert sidecar["restartPolicy"] == "Always"
    assert {place["name"] for place in sidecar["volumeMounts"]} == {each["name"] for each in found["spec"]["volumes"]}
    assert sidecar["args"][-1].startswith(sidecar["volumeMounts"][0]["mountPath"])


@contextmanager
def running(found: dict[str, Any], opt: Path, text: str) -> Iterator[None]:
    """In a child process in the pod's network namespace: the pod's sidecar, once its probe succeeds."""
    (sidecar,) = found["spec"]["initContainers"]
    (entry,) = json.loads(dict(instructions())["ENTRYPOINT"])
    pod.enter(found, sidecar, opt, {"wg0.conf": text})
    environment = {"PATH": f"{Path(entry).parent}:{os.environ['PATH']}", "PYTHONPATH": PACKAGES}
    command = pod.confined(found, sidecar, entry, *sidecar["args"])
    probe = pod.confined(found, sidecar, *sidecar["startupProbe"]["exec"]["command"])
    with subprocess.Popen(command, env=environment, preexec_fn=refuse_namespaces) as daemon:
        try:
            assert wait_for(
                lambda: subprocess.run(probe, env=environment, stderr=subprocess.DEVNULL, check=False).returncode == 0
            )
            yield
        finally:
            daemon.terminate()
        assert daemon.wait(20) == 0


@pytest.mark.root
def test_every_container_of_the_pod_uses_the_interface(server: Server, opt: Path) -> None:
    text = server.text.replace("[Interface]\n", "[Interface]\nPostUp = touch /run/wg0.ready\n", 1)

    def body() -> None:
        with running(manifest("sidecar.yaml"), opt, text):
            subprocess.run(["ping", "-c", "1", "-W", "5", server.address], check=True, stdout=subprocess.DEVNULL)

    server.client.call(body)


@pytest.mark.root
def test_a_proxy_needs_no_root_no_capability_and_no_namespace(
    cable: Cable, server: Server, web: Web, opt: Path
) -> None:
    found = manifest("proxy.yaml")
    (app,) = found["spec"]["containers"]
    program = f"import urllib.request as u; print(u.urlopen('http://{server.address}:8000/page', timeout=10).read())"
    environment = {"PATH": f"{sys.base_prefix}/bin", **{each["name"]: each["value"] for each in app["env"]}}

    def body() -> None:
        with running(found, opt, server.text):
            said = subprocess.run(["python3", "-c", program], env=environment, check=True, stdout=subprocess.PIPE)
            assert said.stdout == f"{PAGE.encode()!r}\n".encode()

    server.client.call(body)
