"""`wgpy gateway run` and `stop`."""

from __future__ import annotations

import argparse
from typing import Any

from wgpy.gateway.cli import common


def add(objects: Any) -> None:
    made = common.command(
        objects,
        "run",
        "run the gateway in the foreground",
        _run,
        epilog="When it ends, the interface, the firewall's table and the sessions stay: those go on until their time "
        "is up, and none begins. `wgpy gateway stop` removes them.",
    )
    made.add_argument("--log", metavar="FILE", help="append the connection log as lines of JSON; - for standard output")
    made.add_argument("--metrics", metavar="HOST:PORT", default="", help="serve metrics to Prometheus over HTTP")
    common.command(objects, "stop", "remove the interface and the table of a gateway that does not run", _stop)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio
    import logging

    from wgpy.daemon.events import open_log, standard_error

    database = common.database(arguments)
    from wgpy.gateway.service.run import run

    logging.basicConfig(stream=standard_error(), level=logging.INFO, format="%(levelname)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    asyncio.run(run(database, open_log(arguments.log) if arguments.log else None, arguments.metrics))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.enforcement.dataplane import DataPlane
    from wgpy.gateway.enforcement.nft import Firewall
    from wgpy.gateway.store import endpoint

    database = common.database(arguments)
    with database.running(), database.read() as connection:
        settings = endpoint.find(connection)
        DataPlane().down(settings.interface)
        Firewall(settings.interface, settings.port).remove()
    return common.done(arguments, f"{settings.interface} removed", {"interface": settings.interface})
