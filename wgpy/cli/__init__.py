"""The `wgpy` command: parses the arguments, runs a command, and prints errors as one line.

Exit status: 0 done, 1 failed (a line on stderr says why and what to do), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

from wgpy.errors import WgpyError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    _open_closed_streams()
    try:
        from wgpy.cli.commands import parse

        arguments = parse(sys.argv[1:] if argv is None else argv)
        status: int = arguments.call(arguments)
        sys.stdout.flush()
    except WgpyError as error:
        print(*(f"wgpy: {line}" for line in _redacted(str(error)).splitlines()), sep="\n", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has closed the pipe, as in `wgpy show | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        where = f"{error.filename}: " if error.filename else ""
        print(_redacted(f"wgpy: {where}{error.strerror or error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _redacted(text: str) -> str:
    from wgpy.config.redact import redacted  # imported only if there is an error

    return redacted(text)


def _open_closed_streams() -> None:
    """Open standard streams that our caller closed. Otherwise a file might get their numbers, and our output."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", closefd=False))  # noqa: SIM115
