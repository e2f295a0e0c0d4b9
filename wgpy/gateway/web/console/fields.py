"""Forms that are lists of fields: what people read, and how each value is read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wgpy.errors import ConfigError
from wgpy.gateway.policy.problems import Problems
from wgpy.gateway.policy.texts import duration, pairs, printable_lines, span
from wgpy.gateway.web.console.visit import Form


class Field(NamedTuple):
    """A field of a form. Its name is the setting's."""

    name: str
    label: str
    hint: str = ""
    kind: str = "line"
    """How it looks: "line", "lines", "choice" (a box to tick), "select" or "secret"."""
    read: Callable[[Form, str], Any] = Form.text
    write: Callable[[Any], Any] = str
    options: tuple[tuple[str, str], ...] = ()
    """Of a "select": values, and what people read."""


Sections = Mapping[str, tuple[Field, ...]]
"""Fields by the title that they stand under."""


def number(name: str, label: str, hint: str = "") -> Field:
    """A field with a number, or nothing, which is None."""
    return Field(name, label, hint, "line", _number, lambda value: "" if value is None else str(value))


def time(name: str, label: str, hint: str) -> Field:
    """A field with a number of seconds, written as 8h."""
    return Field(name, label, hint, "line", lambda form, name: duration(form.text(name)), span)


def switch(name: str, label: str, hint: str) -> Field:
    """A box to tick."""
    return Field(name, label, hint, "choice", lambda form, name: form.text(name) == "yes", bool)


def lines(name: str, label: str, hint: str, read: Callable[[str], Any] = str) -> Field:
    """A field with a value on each line."""
    return Field(
        name, label, hint, "lines", lambda form, name: tuple(map(read, form.lines(name))),
        lambda values: "\n".join(map(str, values)),
    )  # fmt: skip


def text(name: str, label: str, hint: str) -> Field:
    """A field with a text of several lines."""
    return Field(name, label, hint, "lines")


def mapping(name: str, label: str, hint: str) -> Field:
    """A field with NAME=VALUE on each line."""
    return Field(
        name, label, hint, "lines", lambda form, name: pairs(label.lower(), form.lines(name)),
        lambda values: "\n".join(f"{key}={value}" for key, value in values.items()),
    )  # fmt: skip


def secret(name: str, label: str, hint: str) -> Field:
    """A field that is never filled in by the page, and whose spaces count."""
    return Field(name, label, hint, "secret", lambda form, name: "".join(form.chosen(name)[:1]), lambda _: "")


def each_of(sections: Sections) -> list[Field]:
    """All fields of a form."""
    return [field for section in sections.values() for field in section]


def read(sections: Sections, form: Form, problems: Problems) -> dict[str, Any]:
    """What was typed, read. What cannot be read is left out, and in `problems`."""
    values = {}
    for field in each_of(sections):
        with problems.of(field.name):
            for value in form.chosen(field.name):
                printable_lines(field.label.lower(), value)
            values[field.name] = field.read(form, field.name)
    return values


def written(sections: Sections, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields show for these values."""
    return {field.name: field.write(values[field.name]) for field in each_of(sections)}


def typed(sections: Sections, form: Form) -> dict[str, Any]:
    """What the fields show if they are shown again as somebody has filled them in."""
    return {field.name: _typed(field, form) for field in each_of(sections)}


def _typed(field: Field, form: Form) -> Any:
    if field.kind == "choice":
        return form.text(field.name) == "yes"
    return "" if field.kind == "secret" else form.text(field.name)


def _number(form: Form, name: str) -> int | None:
    typed = form.text(name)
    if typed and not (typed.isascii() and typed.isdecimal() and len(typed) < 10):
        raise ConfigError(f"{name} {typed!a}: expected a number")
    return int(typed) if typed else None
