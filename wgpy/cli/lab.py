"""`wgpy lab`: builds an example VPN of network namespaces on this machine, shows and checks it, and removes it."""

from __future__ import annotations

import argparse
import json
import runpy
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wgpy
from wgpy.errors import LabError

if TYPE_CHECKING:
    from wgpy.labs.report import Check

NAMES: Final = (
    "site_to_site",
    "two_tunnels",
    "hub_and_spoke",
    "remote_access",
    "gateway",
    "private_api",
    "transit",
    "sdwan_edge",
    "compare",
)


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    lab = verbs.add_parser(
        "lab",
        help="build an example VPN on this machine, show and check it, and remove it again",
        description="Build a network of namespaces with real daemons and real traffic, show what happens, check it, "
        "and remove it again. The exit status is 1 if a check fails. Needs root.",
        epilog="The README.md, the wg-quick files and the program of each lab are in examples/.",
    )
    lab.add_argument("name", metavar="NAME", choices=(*NAMES, "all"), help=f"one of {', '.join(NAMES)}; or all")
    options(lab)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that runs the lab `name`."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--keep", action="store_true", help="keep it running until Ctrl-C, to look around")
    parser.add_argument("--capture", metavar="DIR", type=Path, help="write a pcap file of every cable to DIR")
    parser.add_argument("--draw", action="store_true", help="print only the topology, as SVG")
    parser.set_defaults(call=_lab)


def directory(name: str) -> Path:
    """The directory of a lab's files: in the installed package, or beside it in a checkout. Raises LabError."""
    package = Path(wgpy.__file__).parent
    found = [path for path in (package / "examples" / name, package.parent / "examples" / name) if path.is_dir()]
    if not found:
        raise LabError(f"the files of lab {name} are not installed")
    return found[0]


def _lab(arguments: argparse.Namespace) -> int:
    names = NAMES if arguments.name == "all" else (arguments.name,)
    if arguments.draw:
        from wgpy.labs.drawing import draw

        sys.stdout.write("".join(draw(_load(name)["TOPOLOGY"]) for name in names))
        return 0
    from wgpy.labs.lab import missing
    from wgpy.labs.report import table

    needed = {program for name in names for program in _load(name).get("PROGRAMS", ())}
    if problem := missing("ip", "ping", "sysctl", *sorted(needed), *(["tcpdump"] if arguments.capture else [])):
        raise LabError(problem)
    tell = partial(print, file=sys.stderr if arguments.json else sys.stdout, flush=True)
    checks: list[Check] = []
    for name in names:
        checks += _run(name, arguments, tell)
    if arguments.json:
        print(json.dumps([check.json() for check in checks], indent=2))
    else:
        print(f"\n{table(checks)}")
    return int(not all(check.passed for check in checks))


def _load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(directory(name) / "lab.py"))


def _run(name: str, arguments: argparse.Namespace, tell: Callable[[str], None]) -> list[Check]:
    from wgpy.labs.lab import Lab

    module = _load(name)
    tell(f"\n{name}: {module['__doc__'].splitlines()[0]}")
    with Lab(directory(name), module["TOPOLOGY"], tell=tell, capture=arguments.capture) as lab:
        try:
            module["run"](lab)
        except Exception as error:  # a command failed, or printed something unexpected
            what = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
            lab.check("runs to its end", False, " ".join(what.split()))
        if arguments.keep:
            tell(f"\nThe lab keeps running. Look around from another terminal; Ctrl-C here removes it:\n{lab.hints()}")
            signal.signal(signal.SIGINT, lambda *_: None)
            signal.pause()
        return lab.checks
