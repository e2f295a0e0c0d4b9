"""What is wrong with several values, by the name of each: a form says it at each field, a command in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from wgpy.errors import ConfigError


class Unusable(ConfigError):
    """Values that cannot be used. `why` says of each one what is wrong with it, by its name."""

    def __init__(self, why: Mapping[str, str]) -> None:
        super().__init__("; ".join(why.values()))
        self.why: dict[str, str] = dict(why)


class Problems:
    """Collects what is wrong with several values, so that all of it is told at once."""

    def __init__(self) -> None:
        self.why: dict[str, str] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Collect the ConfigError of a block that is about the value of this name. An Unusable names its own values."""
        try:
            yield
        except Unusable as error:
            for each, why in error.why.items():
                self.add(each, why)
        except ConfigError as error:
            self.add(name, str(error))

    def add(self, name: str, why: str) -> None:
        """Say what is wrong with the value of this name, unless that was said already."""
        self.why.setdefault(name, why)

    def check(self) -> None:
        """Raises Unusable if something is wrong."""
        if self.why:
            raise Unusable(self.why)
