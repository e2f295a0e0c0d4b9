"""The `wgpy` command: parse the arguments, call the verb, print what went wrong as one line.

Exit status: 0 done, 1 failed (the line on stderr says why and what to do), 2 wrong usage, 130 interrupted.
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
    except BrokenPipeError:  # `wgpy show | head`: whoever read has read enough
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
    from wgpy.config.redact import redacted  # who makes no mistake need not wait for it

    return redacted(text)


def _open_closed_streams() -> None:
    """Whoever calls us may have closed the standard streams; a file that took their numbers would be written to."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", closefd=False))  # noqa: SIM115
