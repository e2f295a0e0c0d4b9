"""`wgpy up`, `run`, `down`, `apply`, `save`, `strip` and `serve`: interfaces on this host and their daemons."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wgpy.cli.files import CONFIG_HELP, load, locate
from wgpy.errors import ConfigError, ControlError

if TYPE_CHECKING:
    from wgpy.config.values import Offloads
    from wgpy.daemon.process import Job


def add(verbs: Any) -> None:
    """Add the commands to the command line."""
    up = verbs.add_parser(
        "up",
        help="bring up an interface, with its daemon in the background",
        description="Create an interface, start its daemon in the background, set addresses, MTU, routes, rules and "
        "DNS and run hooks, as wg-quick does. Returns when that is done. If a step fails, the others are undone.",
        epilog="Example: wgpy up ./wg0.conf; wgpy show wg0; wgpy down wg0. Needs root or CAP_NET_ADMIN.",
    )
    up.set_defaults(call=_up)
    run = verbs.add_parser(
        "run",
        help="bring up an interface and stay in the foreground, until SIGTERM or Ctrl-C",
        description="Like `wgpy up`, but stay in the foreground and log to stderr. SIGTERM or Ctrl-C takes the "
        "interface down.",
    )
    run.set_defaults(call=_run)
    for verb in (up, run):
        verb.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
        add_switches(verb)
        _observe(verb)
    run.add_argument("-v", "--verbose", action="store_true", help="log handshakes, roaming and fallbacks")

    down = verbs.add_parser(
        "down",
        help="take an interface down and undo everything that `up` did",
        description="Stop the daemon of an interface: it runs PreDown, removes its routes, rules and DNS, deletes the "
        "interface and runs PostDown. Returns when that is done.",
    )
    down.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    down.set_defaults(call=_down)

    apply = verbs.add_parser(
        "apply",
        help="apply an edited file to the running interface",
        description="Change keys, peers, addresses, MTU, routes, rules and DNS of a running interface where they "
        "differ from its file, and print each step. Peers that stay keep their sessions; hooks are not run. If "
        "a step fails, the others are undone.",
    )
    apply.set_defaults(call=_apply)
    save = verbs.add_parser(
        "save",
        help="write the state of a running interface to its file",
        description="Write peers, keys, port, mark, addresses and MTU of the running interface to its file. Comments, "
        "peers' names, host names of endpoints and everything else in the file stay. Prints what changed. With "
        "SaveConfig = true in the file, `down` does the same.",
    )
    save.set_defaults(call=_save)
    for verb, what in ((apply, "the steps taken"), (save, "what changed")):
        verb.add_argument("--json", action="store_true", help=f"print {what} as JSON")
    strip = verbs.add_parser(
        "strip",
        help="print the file without wg-quick's own keys, for `wg syncconf`",
        description="Print a configuration file without the keys that only wg-quick and wgpy understand.",
    )
    strip.set_defaults(call=_strip)
    for verb in (apply, save, strip):
        verb.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)

    serve = verbs.add_parser(
        "serve",
        help="serve a bare interface, like wireguard-go; the same as: wgpy [-f] INTERFACE",
        description="Create an interface and serve it in the background, without addresses, routes or peers, which "
        "`ip` and `wg` can set. wg-quick runs this if WG_QUICK_USERSPACE_IMPLEMENTATION=wgpy.",
        epilog="Environment: WG_PROCESS_FOREGROUND=1 is the same as -f. WG_TUN_FD and WG_UAPI_FD are file descriptors "
        "to take over. LOG_LEVEL is verbose, error (the default) or silent; if it is verbose or error, a daemon in the "
        "background keeps writing to standard error, otherwise to /run/wgpy/NAME.log. For wg-quick, WGPY_EVENTS, "
        "WGPY_METRICS, WGPY_KEYLOG, WGPY_WORKERS, WGPY_NO_UDP_GSO=1 and WGPY_NO_TUN_OFFLOAD=1 do the same as the "
        "options.",
    )
    serve.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    add_switches(serve)
    _observe(serve)
    serve.add_argument("interface", metavar="INTERFACE", help='its name; "wg%%d" means the first free number')
    serve.set_defaults(call=_serve)


def add_switches(verb: argparse.ArgumentParser) -> None:
    """Add the options that turn offloads off; `permitted` reads them."""
    verb.add_argument(
        "--no-udp-gso",
        action="store_true",
        help="send datagrams one at a time, without UDP segmentation offload, which is broken in some kernels and "
        "network cards",
    )
    verb.add_argument(
        "--no-tun-offload",
        action="store_true",
        help="read and write packets of the TUN one at a time, without segmentation or merging",
    )
    verb.add_argument(
        "--no-offload", action="store_true", help="turn off both, and also receive datagrams one at a time"
    )


def permitted(arguments: argparse.Namespace) -> Offloads:
    """The offloads that the options allow; a file and the environment may turn off more."""
    from wgpy.config.values import NO_OFFLOADS, Offloads

    if arguments.no_offload:
        return NO_OFFLOADS
    return Offloads(udp_gso=not arguments.no_udp_gso, tun=not arguments.no_tun_offload)


def _observe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--workers",
        metavar="NUMBER",
        help="the number of processes that share the peers, 1 to 64, or auto: one per core, but no more than 8 or than "
        "peers. Without it, # Workers in the file says so, and else it is auto",
    )
    verb.add_argument(
        "--events",
        metavar="FILE",
        default=os.environ.get("WGPY_EVENTS", ""),
        help="append events of peers to FILE, one JSON object a line; - is standard output",
    )
    verb.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        default=os.environ.get("WGPY_METRICS", ""),
        help="serve Prometheus metrics on this address",
    )
    verb.add_argument(
        "--keylog",
        metavar="FILE",
        default=os.environ.get("WGPY_KEYLOG", ""),
        help="append the keys of every handshake to FILE in Wireshark's format; they decrypt all traffic",
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
        workers=_workers(arguments),
    )


def _workers(arguments: argparse.Namespace) -> int | str | None:
    """The number of workers that the option or the environment wants; None if neither says. Raises ControlError."""
    from wgpy.config.wgquick import read_value

    for name, value in (("--workers", arguments.workers), ("WGPY_WORKERS", os.environ.get("WGPY_WORKERS"))):
        if value:
            try:
                workers: int | str = read_value("# Workers", value)
            except ConfigError as error:
                raise ControlError(f"{name}{str(error).removeprefix('# Workers')}") from None
            return workers
    return None


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
    from wgpy.daemon.stop import stop

    stop(locate(arguments.config)[0])
    return 0


def _apply(arguments: argparse.Namespace) -> int:
    from wgpy import control
    from wgpy.daemon.stop import say

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
    """Put the interface's name before errors, as `up` does."""
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
        workers=_workers(arguments),
        tun_fd=_inherited("WG_TUN_FD"),
        uapi_fd=_inherited("WG_UAPI_FD"),
    )
    if arguments.foreground or os.environ.get("WG_PROCESS_FOREGROUND") == "1":
        return run(job)
    return start_in_background(job, keep_output=wanted not in ("", "silent"))


def _inherited(variable: str) -> int | None:
    """The file descriptor that an environment variable names, from our parent. Raises ControlError."""
    text = os.environ.get(variable)
    if text is None:
        return None
    try:
        os.fstat(int(text))
    except (ValueError, OSError):
        raise ControlError(f"{variable}={text}: expected the number of an open file descriptor") from None
    return int(text)
