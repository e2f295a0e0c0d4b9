"""What SQLite and PostgreSQL do in different ways: `Database` knows no more of them than `Backend`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import DataError

from wgpy.errors import ConfigError


class Watch(Protocol):
    """Says whether somebody has changed the database, which costs microseconds to ask."""

    def changed(self) -> bool:
        """Whether there may have been a change since this was last asked. Raises ControlError."""

    def close(self) -> None: ...


class Backend(Protocol):
    """A kind of database. Methods raise the errors of its driver, which `explain` makes a line of."""

    name: str
    """The database in messages, without any secret."""
    is_shared: bool
    """Whether gateways on several hosts may use it."""

    def exists(self) -> bool:
        """Whether there is a gateway's database."""

    def create(self) -> None:
        """Make an empty database, or see that there is one. Raises ConfigError if it has something else."""

    def clock(self) -> float:
        """Seconds since 1970, by the clock that all who use the database share."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection that sees one state of the database."""

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction. There is never more than one at a time; `watch` tells the others when it is committed."""

    def watch(self) -> Watch:
        """Notice changes."""

    def running(self, node: str) -> AbstractContextManager[Callable[[str], None]]:
        """Be the one process that runs this node. Raises ControlError if another process is.

        What is yielded takes what is wrong with the node, or an empty text, for `ailment` in other processes.
        """

    def is_running(self, node: str) -> bool:
        """Whether a process runs this node."""

    def ailment(self, node: str) -> str:
        """What the process that runs this node says is wrong; empty if all is well."""

    def backup(self, target: Path) -> None:
        """Write a copy to an empty file."""

    def warnings(self) -> dict[str, str]:
        """What works and should yet be changed: sentences by what they are about."""

    def explain(self, error: Exception) -> str | None:
        """What the system or another process did, with a remedy; None if that is not what the error is about."""

    def close(self) -> None:
        """Close all connections."""


def refuse_unstorable(engine: Engine) -> None:
    """Have statements raise ConfigError for values that the database has no place for.

    PostgreSQL takes no NUL in a text, SQLite no number of more than 64 bits, and neither takes a surrogate. What people
    type is checked where it is read; this is for whatever else gets as far as here, such as what a directory says.
    """

    @event.listens_for(engine, "handle_error")
    def explain(context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception or context.original_exception
        if isinstance(error, DataError | UnicodeEncodeError | OverflowError):
            raise ConfigError(
                "a text with a NUL character, one that is not Unicode, or a number that is too large cannot be stored; "
                "nothing was changed"
            )
