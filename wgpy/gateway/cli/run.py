"""`wgpy gateway run` and `stop`."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts

if TYPE_CHECKING:
    from wgpy.gateway.web.run import Https


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
    made.add_argument(
        "--flow-log",
        metavar="FILE",
        help="append connections and denied packets as lines of JSON, after `wgpy gateway endpoint set --flow-log`",
    )
    made.add_argument("--metrics", metavar="HOST:PORT", default="", help="serve metrics to Prometheus over HTTP")
    made.add_argument(
        "--https",
        metavar="HOST:PORT",
        help="serve the web pages and the API there, with a certificate that is made once unless one is given; set the "
        "endpoint's --url first",
    )
    made.add_argument("--certificate", metavar="FILE", type=Path, help="a certificate with its chain, in PEM")
    made.add_argument("--certificate-key", metavar="FILE", type=Path, help="its private key, in PEM")
    made.add_argument(
        "--proxy",
        metavar="ADDRESS",
        help="a reverse proxy that has the certificate: --https takes connections without TLS, and from there only",
    )
    made.add_argument("--interface", metavar="NAME", default="", help="the interface, if on this host it is another")
    common.node_option(made)
    made = common.command(
        objects, "stop", "remove the interface and the table that a gateway has left; stop `run` first", _stop
    )
    common.node_option(made)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio
    import logging

    common.require_libraries("fastapi", "uvicorn", "jinja2")
    from wgpy.daemon.events import open_log, standard_error
    from wgpy.gateway.identity import administration
    from wgpy.gateway.service.run import run
    from wgpy.gateway.store import endpoint
    from wgpy.gateway.web.run import beside

    logging.basicConfig(stream=standard_error(), level=logging.INFO, format="%(levelname)s: %(message)s")
    for library in ("alembic", "httpx2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    log, flows = (open_log(name) if name else None for name in (arguments.log, arguments.flow_log))
    https = _https(arguments)
    with closing(common.database(arguments)) as database:
        with database.read() as connection:
            settings = endpoint.find(connection)
            portal = https.portal(settings) if https else None
            if https and not administration.has_administrator(connection):
                logging.getLogger("wgpy.gateway").warning(
                    "nobody may use the console yet: `wgpy gateway group add %s`, `wgpy gateway user add NAME --group "
                    "%s` and `wgpy gateway user invite NAME` make an administrator, and a link for the first sign-in",
                    *[settings.admin_group] * 2,
                )
        web = beside(database, arguments.directory, https)
        asyncio.run(run(database, log, arguments.metrics, web, flows, portal, arguments.interface))
    return 0


def _https(arguments: argparse.Namespace) -> Https | None:
    """Where to serve over TCP. Raises ConfigError for options that do not belong together."""
    from wgpy.gateway.web.run import Https

    files = [path for path in (arguments.certificate, arguments.certificate_key) if path]
    if len(files) == 1:
        raise ConfigError("run: --certificate and --certificate-key belong together; give both")
    if not arguments.https:
        if files or arguments.proxy:
            raise ConfigError("run: --https HOST:PORT is missing, without which nothing is served over TCP")
        return None
    if files and arguments.proxy:
        raise ConfigError("run: behind --proxy, the certificate is the proxy's; leave out --certificate")
    return Https(
        address=arguments.https,
        certificate=(files[0], files[1]) if files else None,
        proxy=texts.address("proxy", arguments.proxy) if arguments.proxy else None,
    )


def _stop(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.enforcement.dataplane import DataPlane
    from wgpy.gateway.enforcement.nft import Firewall
    from wgpy.gateway.store import endpoint, nodes

    with closing(common.database(arguments)) as database, database.running(), database.read() as connection:
        interface, plane = nodes.interface(connection, database.node), DataPlane()
        plane.check(interface, endpoint.private_key(connection, database.vault))
        plane.down(interface)
        Firewall(interface, endpoint.find(connection).port).remove()
    return common.done(arguments, f"{interface} removed", {"interface": interface})
