"""The fields of values that programs write: text is read where it can mean one thing only, and all else is refused.

Without this, a string in the place of a network would fail far from the line that is wrong, in a word of ipaddress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wgpy.errors import ConfigError, KeyFormatError


@dataclass(frozen=True, slots=True)
class Field:
    """What a field takes. `read` makes one of `kinds` of one of `readable`, and raises ValueError for a wrong text.

    `accepts` tells a good value of the right kind from a wrong one, as a port from 70000.
    """

    kinds: tuple[type, ...]
    wanted: str
    read: Callable[[Any], Any] | None = None
    readable: tuple[type, ...] = (str,)
    many: bool = False  # a tuple of them
    accepts: Callable[[Any], bool] | None = None

    def take(self, where: str, given: Any) -> Any:
        """The value, read if need be. Raises TypeError for what is something else, ConfigError or KeyFormatError."""
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
        """Whether it is right as it is, as almost always: told in a fraction of a microsecond."""
        if self.many:
            fitting = type(given) is tuple and {*map(type, given)} <= {*self.kinds}
            return fitting and (self.accepts is None or all(map(self.accepts, given)))
        return type(given) in self.kinds and (self.accepts is None or self.accepts(given))


def take(value: object, fields: Mapping[str, Field]) -> None:
    """Have a new frozen dataclass's fields be what they are to be. Raises as Field.take, naming class and field."""
    for name, field in fields.items():
        given = getattr(value, name)
        if not field.fits(given):
            object.__setattr__(value, name, field.take(f"{type(value).__name__}.{name}", given))


def expect(where: str, given: object, kind: type, remedy: str = "") -> None:
    """Raises TypeError for an argument that is not of the kind."""
    if not isinstance(given, kind):
        raise TypeError(f"{where}: expected {_article(kind.__name__)}{remedy}, not {_kind(given)}")


def _kind(given: object) -> str:
    return "None" if given is None else _article(type(given).__name__)


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOaeiou' else 'a'} {name}"
