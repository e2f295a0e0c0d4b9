"""The `wgpy` command: parse the arguments, call the verb, print what went wrong as one line.

Exit status: 0 done, 1 failed (the line on stderr says why and what to do), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

from wgpy.errors import WgpyError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    from wgpy.cli.commands import parse

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        status: int = arguments.call(arguments)
        sys.stdout.flush()
    except WgpyError as error:
        print(f"wgpy: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `wgpy show | head`: whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return status
