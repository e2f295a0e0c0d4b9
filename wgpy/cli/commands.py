"""The command line: its parser, to which each module of commands adds its own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

from wgpy import __version__

# In the order of `wgpy -h`. Only the module of the command that is run is loaded, because loading all takes long.
MODULES: Final[dict[str, tuple[str, ...]]] = {
    "interface": ("up", "run", "down", "apply", "save", "strip", "serve"),
    "show": ("show",),
    "wg": ("showconf", "set", "setconf", "addconf", "syncconf"),
    "check": ("check",),
    "client": ("client",),
    "rootless": ("exec", "proxy", "forward", "stdio"),
    "gateway": ("gateway",),
    "doctor": ("doctor",),
    "keys": ("genkey", "genpsk", "pubkey"),
    "lab": ("lab",),
}
_KNOWN: Final = tuple(name for names in MODULES.values() for name in names)
_ALONE: Final = ("show", "doctor", "genkey", "genpsk", "pubkey")  # commands that need no arguments
_SPARSE: Final = ("client", "stdio")  # commands with optional words, which Python 3.11 does not find after an option
_FOREGROUND: Final = ("-f", "--foreground")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit, without repeating a key that is among the arguments."""
        from wgpy.config.redact import redacted

        super().error(redacted(message))


def parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    return _build(MODULES)[0]


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the arguments. `[-f] INTERFACE`, wireguard-go's command line, means `serve [-f] INTERFACE`."""
    if _is_interface(argv):
        argv = ["serve", *argv]
    modules = [module for module, names in MODULES.items() if argv and argv[0] in names]
    top, verbs = _build(modules or MODULES, argv[1:])
    if not argv or argv[0] not in _KNOWN:
        if argv and not any(option.startswith(argv[0]) for option in top._option_string_actions):
            top.error(_no_option(argv, top) if argv[0].startswith("-") else _no_command(argv))
        return top.parse_args(argv or ["--help"])
    verb: argparse.ArgumentParser = verbs.choices[argv[0]]
    program: list[str] = []
    if argv[0] == "exec":
        argv, program = _program_apart(verb, argv)
    words = [*argv, "--", program[0]] if program else argv
    if argv[0] in _SPARSE:
        arguments, rest = verb.parse_known_intermixed_args(words[1:])
    else:
        arguments, rest = top.parse_known_args(words)
    if rest:
        verb.error(_no_option(rest, verb))
    if program:
        arguments.command = program
    return arguments


def _is_interface(argv: list[str]) -> bool:
    """Whether the arguments are wireguard-go's: an interface's name, which for wg-quick may be that of a command."""
    words = [word for word in argv if word not in _FOREGROUND]
    if len(words) != 1 or words[0].startswith("-"):
        return False
    if argv[0] in _FOREGROUND:
        return True
    if "WG_QUICK_USERSPACE_IMPLEMENTATION" in os.environ:
        return words[0] not in _ALONE
    return words[0] not in _KNOWN and not _similar(words[0])


def _similar(word: str, known: Iterable[str] = _KNOWN) -> str:
    """The known word that a misspelt one was probably meant to be; empty if there is none."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(known))), "")


def _no_option(rest: list[str], verb: argparse.ArgumentParser) -> str:
    """The error message for arguments that `verb` does not know."""
    if not rest[0].startswith("-"):
        return f"unrecognized arguments: {' '.join(rest)}"
    option = rest[0].partition("=")[0]
    if option in _FOREGROUND:
        return f"{option}: expected an interface name, and nothing else"
    similar = _similar(option, verb._option_string_actions)
    return f"unknown option {option}; {f'did you mean {similar}?' if similar else f'`{verb.prog} -h` lists them'}"


def _no_command(argv: list[str]) -> str:
    similar = _similar(argv[0])
    hint = f"did you mean `wgpy {similar}`?" if similar else "`wgpy -h` lists them"
    interface = f" (to serve an interface of that name: `wgpy serve {argv[0]}`)" if len(argv) == 1 else ""
    return f"unknown command {argv[0]!r}; {hint}{interface}"


def _program_apart(verb: argparse.ArgumentParser, argv: list[str]) -> tuple[list[str], list[str]]:
    """Split the command line of `exec` as env(1) does: up to the program, and the program with its own options."""
    place, words = 1, 0  # `words` counts words that are not options: first the configuration, then the program
    while place < len(argv):
        word = argv[place]
        if words and (word == "--" or not word.startswith("-")):
            return argv[:place], argv[place + (word == "--") :]
        if word == "--":
            break
        if word.startswith("-"):
            meant = [a for a in verb._actions if any(flag.startswith(word) for flag in a.option_strings)]
            place += any(action.nargs != 0 for action in meant)  # skips its value
        else:
            words += 1
        place += 1
    return argv, []


def _build(modules: Iterable[str], words: Sequence[str] = ()) -> tuple[argparse.ArgumentParser, Any]:
    """Make the parser of these modules' commands; of the gateway's very many, those that `words` after it ask for."""
    top = _Parser(
        prog="wgpy",
        description="WireGuard in pure Python: bring up an interface from a wg-quick file, inspect it, take it down.",
        epilog="Each command has its own help, such as wgpy up -h. Like wireguard-go's, wgpy [-f] INTERFACE serves a "
        "bare interface; it is short for wgpy serve.",
    )
    top.add_argument("--version", action="version", version=f"wgpy {__version__}")
    verbs = top.add_subparsers(metavar="COMMAND", required=True)
    for module in modules:
        asked = (words,) if module == "gateway" else ()
        import_module(f"wgpy.cli.{module}").add(verbs, *asked)
    return top, verbs
