"""`wgpy check`: every problem of a configuration file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from wgpy.config import wgquick
from wgpy.daemon.files import read_text


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    check = verbs.add_parser(
        "check",
        help="every problem of a configuration file, without touching anything",
        description="Read a wg-quick file and say every problem with its line. Exit status 1 if there is any error; "
        "warnings alone are 0.",
    )
    check.add_argument("file", metavar="FILE", help="the file to check")
    check.add_argument("--json", action="store_true", help="as JSON: a list of problems")
    check.set_defaults(call=_check)


def _check(arguments: argparse.Namespace) -> int:
    path = Path(arguments.file)
    try:
        warnings = wgquick.parse(read_text(path), str(path)).warnings
        errors: tuple[wgquick.Problem, ...] = ()
    except wgquick.ConfigFileError as error:
        warnings, errors = (), error.problems
    if arguments.json:
        found = [("error", p) for p in errors] + [("warning", p) for p in warnings]
        print(
            json.dumps(
                [
                    {"severity": severity, "file": p.filename, "line": p.line, "key": p.key, "message": p.message}
                    for severity, p in found
                ],
                indent=2,
            )
        )
    else:
        for problem in errors:
            print(problem)
        for problem in warnings:
            print(f"{problem} (warning)")
        if not errors:
            print(f"{path}: ok")
    return 1 if errors else 0
