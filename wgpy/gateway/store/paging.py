"""Long tables, a page at a time: a page costs two queries, however long the table is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, func, or_, true

T = TypeVar("T")

SIZE: Final = 50  # rows of a page, unless another number is asked for


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of the rows that were found. `number` counts pages from 1; `total` is how many rows there are in all."""

    rows: Sequence[T]
    number: int
    total: int
    size: int = SIZE

    @property
    def last(self) -> int:
        """The number of the last page, at least 1."""
        return _last(self.total, self.size)

    @property
    def first_row(self) -> int:
        """The place of the first row here among all, from 1."""
        return (self.number - 1) * self.size + 1


def find(connection: Connection, query: Select[Any], number: int, size: int = SIZE) -> Page[Any]:
    """The page of a sorted query with that number, or the nearest that there is."""
    every = query.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
    total: int = connection.execute(every).scalar_one()
    number = min(max(number, 1), _last(total, size))
    rows = connection.execute(query.limit(size).offset((number - 1) * size)).all()
    return Page(rows, number, total, size)


def contains(text: str, *columns: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether one of the columns contains a text, in whatever case; all do contain an empty one."""
    return or_(*(column.icontains(text, autoescape=True) for column in columns)) if text else true()


def _last(total: int, size: int) -> int:
    return max(1, -(-total // size))
