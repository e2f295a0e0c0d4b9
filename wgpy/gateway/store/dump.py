"""A copy of a whole database as lines of JSON, which SQLite and PostgreSQL can both take in.

The first line says which migration had made the tables, each line after it is a row, and the last one says how many
rows each table has. Bytes are in base64. Secrets stay sealed with the key that is not in here.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import JSON, Connection, LargeBinary, MetaData, Table, func, insert, select, text

from wgpy.errors import ConfigError

MARK: Final = '{"wgpy gateway"'
"""What the first line begins with."""
_BATCH: Final = 1000  # rows


def write(connection: Connection, target: Path) -> None:
    """Write a copy to a file."""
    with target.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines(connection))


def lines(connection: Connection) -> Iterator[str]:
    """The lines of a copy."""
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    yield json.dumps({"wgpy gateway": revision})
    counts: dict[str, int] = {}
    for table in _tables(connection):
        counts[table.name] = 0
        for row in connection.execute(select(table)).yield_per(_BATCH).mappings():
            counts[table.name] += 1
            yield json.dumps({"table": table.name, "row": {c.name: _plain(row[c.name]) for c in table.columns}})
    yield json.dumps({"rows": counts})


def load(connection: Connection, every: Iterable[str], name: str, upgrade: Callable[[str], None]) -> int:
    """Replace all tables by those of a copy, `name` in messages. Returns how many rows that is.

    `upgrade` makes the tables of a migration. Raises ConfigError if it is not a whole copy: then the caller's
    transaction must not be committed.
    """
    given = iter(every)
    try:
        upgrade_to = str(json.loads(next(given))["wgpy gateway"])
        old = MetaData()
        old.reflect(connection)
        old.drop_all(connection)
        upgrade(upgrade_to)
        tables = {table.name: table for table in _tables(connection)}
        for table in reversed(tables.values()):
            connection.execute(table.delete())  # what a migration has put there
        expected = _fill(connection, given, tables)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise ConfigError(f"{name}: not a backup of a gateway, or a damaged one") from error
    found = {each: connection.execute(select(func.count()).select_from(tables[each])).scalar_one() for each in expected}
    if found != expected:
        raise ConfigError(f"{name}: has not all rows that it should have; the copy is damaged")
    if connection.dialect.name == "postgresql":  # which numbers new rows by what it has numbered, not by what is there
        for table in tables.values():
            for column in table.primary_key.columns:
                if column.server_default is not None:
                    place, last = f"pg_get_serial_sequence('{table.name}', '{column.name}')", func.max(column)
                    connection.execute(select(func.setval(text(place), last)).having(last.is_not(None)))
    return sum(found.values())


def _fill(connection: Connection, given: Iterator[str], tables: dict[str, Table]) -> dict[str, int]:
    """Insert the rows. Returns how many there should be."""
    waiting: list[dict[str, Any]] = []
    of: Table | None = None
    for line in given:
        entry = json.loads(line)
        table = tables[entry["table"]] if "table" in entry else None
        if of is not None and (table is not of or len(waiting) == _BATCH):
            connection.execute(insert(of), waiting)
            waiting = []
        if table is None:
            counts = dict(entry["rows"])
            if counts.keys() - tables.keys():
                raise ValueError("unknown tables")
            return counts
        of = table
        waiting.append({key: _value(table, key, value) for key, value in entry["row"].items()})
    raise ValueError("no last line")


def _tables(connection: Connection) -> list[Table]:
    """The tables as they are, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    tables = [table for table in found.sorted_tables if table.name != "alembic_version"]
    for table in tables:
        for column in table.columns:
            if isinstance(column.type, JSON) and column.nullable:
                column.type.none_as_null = True
    return tables


def _plain(value: object) -> object:
    return b64encode(value).decode() if isinstance(value, bytes) else value


def _value(table: Table, key: str, value: Any) -> object:
    return b64decode(value) if value is not None and isinstance(table.columns[key].type, LargeBinary) else value
