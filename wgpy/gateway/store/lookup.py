"""What every kind of object needs: errors that name what is there and what is not."""

from __future__ import annotations

from difflib import get_close_matches

from sqlalchemy import Column, ColumnElement, Connection, Table, func, select

from wgpy.errors import ConfigError


class Missing(ConfigError):
    """There is nothing of that `name`, which is empty for what there is at most one of."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class Conflict(ConfigError):
    """What is there already is in the way: the same name, or something that uses the object."""


def names(connection: Connection, column: Column[str]) -> list[str]:
    """All names in a column, sorted."""
    return sorted(connection.execute(select(column)).scalars())


def count(connection: Connection, table: Table, *which: ColumnElement[bool]) -> int:
    """How many rows a table has, of those for which all of `which` are true."""
    number: int = connection.execute(select(func.count()).select_from(table).where(*which)).scalar_one()
    return number


def missing(kind: str, name: str, known: list[str]) -> Missing:
    """The error for a name that nothing has."""
    similar = next(iter(get_close_matches(name, known, 1)), "")
    hint = f"did you mean {similar}?" if similar else f"`wgpy gateway {kind} list` shows those that exist"
    return Missing(f"{kind} {name!a}: there is none of that name; {hint}", name)


def check_new(connection: Connection, kind: str, column: Column[str], name: str) -> None:
    """Raises Conflict if the name is taken."""
    if connection.execute(select(column).where(column == name)).first():
        raise Conflict(f"{kind} {name}: exists already; choose another name, or change that one")


def check_exists(connection: Connection, kind: str, column: Column[str], name: str) -> None:
    """Raises Missing if nothing has the name."""
    if not connection.execute(select(column).where(column == name)).first():
        raise missing(kind, name, names(connection, column))
