"""`wgpy up`, `run` and `down`: an interface with all that surrounds it."""

from __future__ import annotations

import argparse
from typing import Any

from wgpy.cli.files import CONFIG_HELP, load, locate


def add(verbs: Any) -> None:
    """Add the commands to the command line."""
    up = verbs.add_parser(
        "up",
        help="bring up an interface and leave a daemon serving it",
        description="Create the interface, start its daemon in the background, and set addresses, MTU, routes, rules, "
        "DNS and hooks as wg-quick does. Returns when all is done; if a step fails, what was done is undone.",
        epilog="Example: wgpy up ./wg0.conf; wgpy show wg0; wgpy down wg0. Needs root or CAP_NET_ADMIN.",
    )
    up.set_defaults(call=_up)
    run = verbs.add_parser(
        "run",
        help="the same in the foreground, until SIGTERM or Ctrl-C",
        description="As `wgpy up`, but stay in the foreground and log to stderr. SIGTERM or Ctrl-C takes it down.",
    )
    run.set_defaults(call=_run)
    for verb in (up, run):
        verb.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
        verb.add_argument(
            "--no-offload",
            action="store_true",
            help="move packets one at a time, without segmentation or merging (for kernels where that is broken)",
        )
    run.add_argument("-v", "--verbose", action="store_true", help="log handshakes, roaming and fallbacks")

    down = verbs.add_parser(
        "down",
        help="take an interface down and undo all that `up` did",
        description="End the daemon of an interface; it runs PreDown, removes its routes, rules and DNS, deletes the "
        "interface and runs PostDown. Returns when that is done.",
    )
    down.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    down.set_defaults(call=_down)


def _up(arguments: argparse.Namespace) -> int:
    from wgpy.daemon.process import start_in_background

    name, file = load(arguments.config)
    return start_in_background(name, file.config, offload=not arguments.no_offload)


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from wgpy.daemon.process import run

    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
    )
    name, file = load(arguments.config)
    return run(name, file.config, offload=not arguments.no_offload)


def _down(arguments: argparse.Namespace) -> int:
    from wgpy.daemon.process import stop

    stop(locate(arguments.config)[0])
    return 0
