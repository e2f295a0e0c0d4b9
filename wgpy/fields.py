"""The fields of public values: text is parsed where its meaning is clear, and other types are refused.

Without this, a string in the place of a network would fail far from the wrong line, with a message of ipaddress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wgpy.errors import ConfigError, KeyFormatError


@dataclass(frozen=True, slots=True)
class Field:
    """What a field takes: one of `kinds`; or one of `readable`, which `read` parses, with ValueError for wrong text.

    `accepts` says whether a value of the right type is in range, for example a port. `wanted` is for error messages.
    """

    kinds: tuple[type, ...]
    wanted: str
    read: Callable[[Any], Any] | None = None
    readable: tuple[type, ...] = (str,)
    many: bool = False  # whether the field is a tuple of them
    accepts: Callable[[Any], bool] | None = None

    def take(self, where: str, given: Any) -> Any:
        """The value, parsed if need be. Raises TypeError for a wrong type, ConfigError or KeyFormatError for text."""
        if not self.many:
            return self._take_one(where, given)
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise TypeError(f"{where}: expected a tuple, each item {self.wanted}, not {_kind(given)} by itself")
        return tuple(self._take_one(where, each) for each in given)

    def _take_one(self, where: str, given: Any) -> Any:
        if isinstance(given, self.kinds):
            return self._accepted(where, given)
        if self.read is None or type(given) not in self.readable:
            raise TypeError(f"{where}: expected {self.wanted}, not {_kind(given)}")
        try:
            value = self.read(given)
        except KeyFormatError as error:  # which does not repeat it
            raise KeyFormatError(f"{where}: {error}") from None
        except ValueError as error:
            from wgpy.config.redact import redacted  # a key may stand in the place of something else

            raise ConfigError(f"{where}: {redacted(str(error))}") from None
        return self._accepted(where, value)

    def _accepted(self, where: str, value: Any) -> Any:
        if self.accepts and not self.accepts(value):
            from wgpy.config.redact import shown

            raise ConfigError(f"{where}: expected {self.wanted}, not {shown(str(value))}")
        return value

    def fits(self, given: Any) -> bool:
        """Whether the value can stay as it is, as nearly always; this takes a fraction of a microsecond."""
        if self.many:
            fitting = type(given) is tuple and {*map(type, given)} <= {*self.kinds}
            return fitting and (self.accepts is None or all(map(self.accepts, given)))
        return type(given) in self.kinds and (self.accepts is None or self.accepts(given))


def take(value: object, fields: Mapping[str, Field]) -> None:
    """Parse and check the fields of a new frozen dataclass. Raises as Field.take; errors name class and field."""
    for name, field in fields.items():
        given = getattr(value, name)
        if not field.fits(given):
            object.__setattr__(value, name, field.take(f"{type(value).__name__}.{name}", given))


def expect(where: str, given: object, kind: type, remedy: str = "") -> None:
    """Raises TypeError for an argument of another type."""
    if not isinstance(given, kind):
        raise TypeError(f"{where}: expected {_article(kind.__name__)}{remedy}, not {_kind(given)}")


def _kind(given: object) -> str:
    return "None" if given is None else _article(type(given).__name__)


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOaeiou' else 'a'} {name}"
