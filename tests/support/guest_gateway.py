"""A gateway where the kernel has WireGuard, which may be the virtual machine of `kernel_peer`.

    python -m tests.support.guest_gateway DIRECTORY PORT

Runs the gateway whose database and key are in DIRECTORY, and a server on PORT whose clients send the words of a command
of `wgpy gateway` as a line of JSON; the answer is its exit status. Python takes long to start in the machine.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from pathlib import Path

from tests.gateway.enforcement import probes  # noqa: F401 (for the machine)
from wgpy.cli import main
from wgpy.errors import ControlError
from wgpy.gateway.service.run import run
from wgpy.gateway.store.database import Database


def places(directory: Path) -> list[str]:
    """Where the gateway is, as options of its commands."""
    return ["--directory", str(directory), "--key", str(directory / "key")]


async def serve(directory: Path, port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            status = await asyncio.to_thread(main, ["gateway", *json.loads(line), *places(directory)])
            writer.write(b"%d\n" % status)
        writer.close()

    server = await asyncio.start_server(answer, "0.0.0.0", port)
    async with server:
        await run(Database(directory / "gateway.db", directory / "key"))


def rehearse() -> None:
    """Load what the gateway and its commands will need, also what is only loaded when it is used."""
    from wgpy import control
    from wgpy.device.changes import DeviceChange
    from wgpy.gateway.enforcement.dataplane import DataPlane
    from wgpy.net import wireguard

    with tempfile.TemporaryDirectory() as temporary, redirect_stdout(sys.stderr):
        directory = Path(temporary)
        for words in (
            "init --host 192.0.2.1 --pool 10.99.0.0/24",
            "group add staff",
            "user add alice --group staff",
            "rule add all 0.0.0.0/0 --group staff",
            "route add 10.0.0.0/16",
            f"device add phone --user alice --output {directory / 'phone.conf'}",
            "device disable phone",
            "rule remove all",
            "user disable alice",
        ):
            assert main(["gateway", *words.split(), *places(directory)]) == 0
        main(["gateway", "status", *places(directory)])
        main(["gateway", "session", "terminate", "alice", *places(directory)])
    DataPlane().networks_of_host()
    for call in (control.status, lambda name: wireguard.write(name, DeviceChange())):
        with suppress(ControlError):
            call("nope")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
