"""All commands with their arguments, read from the parsers: manuals, completion and the site are made from them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache, partial

from wgpy.cli.commands import parser
from wgpy.cli.show import _SCRIPTS


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument, or an option with its flags. `value` is its metavar; empty for a switch."""

    flags: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...]
    rest: bool  # takes all remaining words


@dataclass(frozen=True, slots=True)
class Command:
    """A command of wgpy, with its arguments."""

    name: str
    summary: str
    usage: str
    description: str
    epilog: str
    arguments: tuple[Argument, ...]

    @property
    def options(self) -> list[Argument]:
        return [argument for argument in self.arguments if argument.flags]

    @property
    def positionals(self) -> list[Argument]:
        return [argument for argument in self.arguments if not argument.flags]


@cache
def commands() -> tuple[Command, ...]:
    """All commands, in the order of `wgpy -h`."""
    (verbs,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in verbs._choices_actions}
    return tuple(_command(name, summaries[name], verb) for name, verb in verbs.choices.items() if name in summaries)


def _command(name: str, summary: str, verb: argparse.ArgumentParser) -> Command:
    verb.formatter_class = partial(argparse.HelpFormatter, width=10_000)  # no line breaks
    usage = " ".join(verb.format_usage().removeprefix("usage: ").split())
    arguments = tuple(_argument(verb, action) for action in verb._actions)
    return Command(name, summary % {}, usage, verb.description or "", verb.epilog or "", arguments)


def _argument(verb: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    value = "" if action.nargs == 0 else str(action.metavar or action.dest)
    text = verb._get_formatter()._expand_help(action) if action.help else ""
    choices = tuple(map(str, action.choices or (_SCRIPTS if value == "PARAMETER" else ())))
    return Argument(tuple(action.option_strings), value, text, choices, action.nargs in (argparse.REMAINDER, "+"))
