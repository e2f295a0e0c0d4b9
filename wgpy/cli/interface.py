"""`wgpy up`, `run` and `down`: an interface with all that surrounds it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wgpy.cli.files import CONFIG_HELP, load, locate
from wgpy.errors import ControlError

if TYPE_CHECKING:
    from wgpy.config.values import Offloads
    from wgpy.daemon.process import Job


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
        add_switches(verb)
        _observe(verb)
    run.add_argument("-v", "--verbose", action="store_true", help="log handshakes, roaming and fallbacks")

    down = verbs.add_parser(
        "down",
        help="take an interface down and undo all that `up` did",
        description="End the daemon of an interface; it runs PreDown, removes its routes, rules and DNS, deletes the "
        "interface and runs PostDown. Returns when that is done.",
    )
    down.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    down.set_defaults(call=_down)

    apply = verbs.add_parser(
        "apply",
        help="make a running interface what its edited file says",
        description="Bring keys, peers, addresses, MTU, routes, rules and DNS of a running interface in line with its "
        "file. Peers that stay keep their sessions; hooks are not run. If a step fails, the others are taken back. "
        "Says each step; nothing is said, or done, for what is as it should be.",
    )
    apply.set_defaults(call=_apply)
    save = verbs.add_parser(
        "save",
        help="write into its file what a running interface has become",
        description="Bring the file in line with the running interface: peers, keys, port, mark, addresses and MTU. "
        "Comments, peers' names, host names of endpoints and everything else in the file stay. Says in a line what "
        "changed. With SaveConfig = true in the file, `down` does this.",
    )
    save.set_defaults(call=_save)
    for verb, what in ((apply, "the steps taken"), (save, "what changed")):
        verb.add_argument("--json", action="store_true", help=f"print {what} as JSON")
    strip = verbs.add_parser(
        "strip",
        help="the file without wg-quick's own keys, for `wg syncconf`",
        description="Print a configuration file without the keys that only wg-quick and wgpy know.",
    )
    strip.set_defaults(call=_strip)
    for verb in (apply, save, strip):
        verb.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)

    serve = verbs.add_parser(
        "serve",
        help="serve a bare interface, as wireguard-go does; the same as: wgpy [-f] INTERFACE",
        description="Create an interface and serve it in the background, without addresses, routes or configuration: "
        "`wg` and `ip` give it those. This is what wg-quick calls with WG_QUICK_USERSPACE_IMPLEMENTATION=wgpy.",
        epilog="Environment: WG_PROCESS_FOREGROUND=1 as -f; WG_TUN_FD and WG_UAPI_FD, file descriptors to take over; "
        "LOG_LEVEL verbose, error (the default) or silent. With one of the first two in it, a daemon in the background "
        "goes on writing to standard error, else to /run/wgpy/NAME.log. Under wg-quick, WGPY_EVENTS, WGPY_METRICS, "
        "WGPY_KEYLOG, WGPY_NO_UDP_GSO=1 and WGPY_NO_TUN_OFFLOAD=1 do what the options do.",
    )
    serve.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    add_switches(serve)
    _observe(serve)
    serve.add_argument("interface", metavar="INTERFACE", help='its name; "wg%%d" takes the first free number')
    serve.set_defaults(call=_serve)


def add_switches(verb: argparse.ArgumentParser) -> None:
    """Add the options that forbid offloads: `permitted` reads them."""
    verb.add_argument(
        "--no-udp-gso",
        action="store_true",
        help="send datagrams one at a time, without UDP segmentation offload (for kernels and network cards where that "
        "is broken)",
    )
    verb.add_argument(
        "--no-tun-offload",
        action="store_true",
        help="read and write packets of the TUN one at a time, without segmentation or merging",
    )
    verb.add_argument("--no-offload", action="store_true", help="both, and receive datagrams one at a time, too")


def permitted(arguments: argparse.Namespace) -> Offloads:
    """What the options allow; a file and the environment may forbid more."""
    from wgpy.config.values import NO_OFFLOADS, Offloads

    if arguments.no_offload:
        return NO_OFFLOADS
    return Offloads(udp_gso=not arguments.no_udp_gso, tun=not arguments.no_tun_offload)


def _observe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--events",
        metavar="FILE",
        default=os.environ.get("WGPY_EVENTS", ""),
        help="append what happens to peers, one JSON object a line",
    )
    verb.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        default=os.environ.get("WGPY_METRICS", ""),
        help="serve Prometheus metrics at this address",
    )
    verb.add_argument(
        "--keylog",
        metavar="FILE",
        default=os.environ.get("WGPY_KEYLOG", ""),
        help="append the keys of every handshake in Wireshark's format: who has the file can read all traffic",
    )


def _job(arguments: argparse.Namespace) -> Job:
    from wgpy.daemon.process import Job

    name, file = load(arguments.config)
    return Job(
        name,
        file.config,
        path=locate(arguments.config)[1].absolute(),
        offloads=permitted(arguments),
        events=arguments.events,
        keylog=arguments.keylog,
        metrics=arguments.metrics,
    )


def _up(arguments: argparse.Namespace) -> int:
    from wgpy.daemon.process import start_in_background

    return start_in_background(_job(arguments))


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from wgpy.daemon.events import standard_error
    from wgpy.daemon.process import run

    logging.basicConfig(
        stream=standard_error(),
        level=logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if arguments.verbose:
        logging.getLogger("wgpy").setLevel(logging.DEBUG)
    return run(_job(arguments))


def _down(arguments: argparse.Namespace) -> int:
    from wgpy.daemon.process import stop

    stop(locate(arguments.config)[0])
    return 0


def _apply(arguments: argparse.Namespace) -> int:
    from wgpy import control
    from wgpy.daemon.process import say

    name, file = load(arguments.config)
    with _naming(name):
        steps, error = control.apply(name, str(file))
        if arguments.json:
            _print_json({"interface": name, "steps": steps, "error": error or None})
        else:
            for step in steps:
                say(step)
        if error:
            raise ControlError(error)
    return 0


def _save(arguments: argparse.Namespace) -> int:
    from wgpy import control
    from wgpy.daemon.save import save

    name, path = locate(arguments.config)
    with _naming(name):
        saved = save(name, path, control.status)
    if arguments.json:
        peers = {"added": saved.added, "removed": saved.removed, "changed": saved.changed}
        _print_json(
            {
                "interface": name,
                "file": str(path),
                "interface_changed": saved.interface,
                "peers": {what: [key.base64() for key in keys] for what, keys in peers.items()},
            }
        )
    else:
        print(saved, file=sys.stderr)
    return 0


def _print_json(report: dict[str, Any]) -> None:
    import json

    print(json.dumps(report, indent=2))


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Have an error of a running interface begin with its name, as that of `up` does."""
    try:
        yield
    except ControlError as error:
        raise ControlError(f"{name}: {error}") from error


def _strip(arguments: argparse.Namespace) -> int:
    sys.stdout.write(load(arguments.config)[1].strip())
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    import logging

    from wgpy.config.values import InterfaceConfig
    from wgpy.daemon.events import standard_error
    from wgpy.daemon.process import Job, run, start_in_background
    from wgpy.tun.linux import check_name

    levels = {"verbose": logging.DEBUG, "debug": logging.DEBUG, "silent": logging.CRITICAL}
    wanted = os.environ.get("LOG_LEVEL", "")
    level = levels.get(wanted, logging.ERROR)
    logging.basicConfig(stream=standard_error(), level=level, format="%(levelname)s: %(message)s")
    check_name(arguments.interface)
    job = Job(
        arguments.interface,
        InterfaceConfig(),
        quick=False,
        offloads=permitted(arguments),
        events=arguments.events,
        keylog=arguments.keylog,
        metrics=arguments.metrics,
        tun_fd=_inherited("WG_TUN_FD"),
        uapi_fd=_inherited("WG_UAPI_FD"),
    )
    if arguments.foreground or os.environ.get("WG_PROCESS_FOREGROUND") == "1":
        return run(job)
    return start_in_background(job, keep_output=wanted not in ("", "silent"))


def _inherited(variable: str) -> int | None:
    """A file descriptor that whoever started us names in the environment. Raises ControlError."""
    text = os.environ.get(variable)
    if text is None:
        return None
    try:
        os.fstat(int(text))
    except (ValueError, OSError):
        raise ControlError(f"{variable}={text}: expected the number of an open file descriptor") from None
    return int(text)
