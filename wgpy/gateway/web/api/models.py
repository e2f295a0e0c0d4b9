"""What all descriptions of objects share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wgpy.gateway.policy import texts
from wgpy.gateway.store import paging

T = TypeVar("T")

LONGEST_PAGE: Final = 1000  # objects
_LONGEST_TEXT: Final = 1000  # characters
_LAST: Final = 253402300799  # seconds since 1970: the end of the year 9999

Number = Annotated[int, Query(alias="page", ge=1, le=1 << 31, description="The number of the page, from 1.")]
Size = Annotated[int, Query(ge=1, le=LONGEST_PAGE, description="How many objects a page has.")]
Text = Annotated[str, Query(max_length=_LONGEST_TEXT, description="Only those that contain this text.")]
Moment = Annotated[float, Field(ge=0, le=_LAST)]


class Output(BaseModel):
    """What an answer has."""


class Input(BaseModel):
    """What a request has: nothing but what is described, of exactly that type."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _is_printable(self) -> Input:
        for name in self.model_fields_set:
            check = texts.printable_lines if name in self.lines() else texts.printable
            for text in _texts(getattr(self, name)):
                check(name, text)
        return self

    @classmethod
    def lines(cls) -> tuple[str, ...]:
        """The fields that have several lines."""
        return ()

    def given(self) -> dict[str, Any]:
        """The values of the fields that the request has."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Page(Output, Generic[T]):
    """Some of many objects."""

    items: list[T]
    page: int = Field(description="The number of this page.")
    pages: int = Field(description="How many pages there are, at least 1.")
    total: int = Field(description="How many objects there are on all pages.")


def page(found: paging.Page[Any]) -> dict[str, Any]:
    """A page of objects that have `json`, or of dictionaries."""
    items = [row if isinstance(row, dict) else row.json() for row in found.rows]
    return {"items": items, "page": found.number, "pages": found.last, "total": found.total}


def expiry(value: float | str | None) -> float | None:
    """Read a moment, a day as on the command line, or None for never. Raises ConfigError."""
    return texts.date(value) if isinstance(value, str) else value


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []
