"""Edits a wg-quick file as a person would: only the lines that must change do, and all others stay to the byte.

A change is given as the configuration that the file should describe. Settings that already have the right value keep
their spelling, order, comments and white space. When a peer is removed, so are its section and the comments next to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Final

from wgpy.config.values import InterfaceConfig, PeerConfig
from wgpy.config.wgquick import COMMENTS, NAME, ROWS, Block, ConfigFileError, Key, WgQuickFile, parse
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

# What precedes a value, the value, and what follows it. A hook or a name extends to the end of the line.
_VALUE: Final = re.compile(r"([^=]*=[ \t]*)(.*?)([ \t]*(?:#.*)?)(\r?)")
_REST: Final = re.compile(r"([^=]*=[ \t]*)(.*?)()(\r?)")
_CHARACTERS: Final = "a name, hook or search domain has characters that a configuration file cannot hold"
_DEFAULTS: Final = {field.name: field.default for kind in (InterfaceConfig, PeerConfig) for field in fields(kind)}


def rewritten(file: WgQuickFile, config: InterfaceConfig) -> WgQuickFile:
    """Edit a file to describe `config`; new peers are added at the end. `rewritten(file, file.config)` changes nothing.

    Raises ConfigError for values that no file can hold, such as a name with a line break or a peer with our own key.
    """
    text = _Text(file.lines)
    text.change(file.blocks[0], "Interface", file.config, config)
    blocks: dict[PublicKey, list[Block]] = {}
    for block in file.blocks[1:]:
        blocks.setdefault(block.values["public_key"], []).append(block)
    before = {peer.public_key: peer for peer in file.config.peers}
    after = {peer.public_key: peer for peer in config.peers}
    for public_key, sections in blocks.items():
        peer = after.get(public_key)
        if peer == before[public_key]:
            continue
        for section in sections if peer is None else sections[:-1]:
            text.delete(section)
        if peer is not None:  # if it had several sections, only the last one stays
            text.change(sections[-1], "Peer", before[public_key] if len(sections) == 1 else None, peer)
    for public_key, peer in after.items():
        if public_key not in before:
            text.append(peer)
    try:
        result = parse(str(text))
    except ConfigFileError as error:
        told = "; ".join(": ".join(filter(None, (problem.key, problem.message))) for problem in error.problems)
        raise ConfigError(f"a configuration file cannot hold this: {told}") from error
    if _unordered(result.config) != _unordered(config):
        raise ConfigError(_CHARACTERS)
    return result


def section_lines(file: WgQuickFile, public_key: PublicKey) -> list[int]:
    """The line numbers, from 1, of a peer's sections, each from its header to its last key."""
    blocks = [block for block in file.blocks[1:] if block.values["public_key"] == public_key]
    return [number for block in blocks for number in range(block.headers[0], _last_line(block) + 1)]


def _last_line(block: Block) -> int:
    return max((*block.headers, *(number for numbers in block.lines.values() for number in numbers)), default=0)


class _Text:
    """A file's lines and their edits, by line number from 1: `_now` replaces a line, `_after` follows it (0: top)."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        self._lines = lines
        self._now: dict[int, str | None] = {}
        self._after: dict[int, list[str]] = {}
        self._appended: list[str] = []
        self._end = "\r" if lines[0].endswith("\r") else ""

    def __str__(self) -> str:
        lines = list(self._after.get(0, ()))
        for number, line in enumerate(self._lines, 1):
            if (now := self._now.get(number, line)) is not None:
                lines.append(now)
            lines += self._after.get(number, ())
        if self._appended:
            while lines and not lines[-1].strip():
                lines.pop()
            lines += [*(self._appended if lines else self._appended[1:]), ""]
        return "\n".join(lines)

    def change(
        self,
        block: Block,
        section: str,
        before: InterfaceConfig | PeerConfig | None,
        after: InterfaceConfig | PeerConfig,
    ) -> None:
        """Edit one section to describe `after`; settings that `before` has as well stay untouched."""
        new: list[str] = []
        for name, is_rest, items in _differences(section, before, after):
            numbers = block.lines.get(name, [])
            texts = items if is_rest else [", ".join(items)] if items else []
            for number, text in zip(numbers, texts, strict=False):
                self._put(number, text, _REST if is_rest else _VALUE)
            for number in numbers[len(texts) :]:
                self._now[number] = None
            added = [f"{name} = {text}{self._end}" for text in texts[len(numbers) :]]
            if numbers or name == NAME:
                self._after.setdefault(numbers[-1] if numbers else block.headers[0], []).extend(added)
            else:
                new += added
        if new and not block.headers:
            new = [f"[{section}]{self._end}", *new, self._end]
        self._after.setdefault(_last_line(block), []).extend(new)

    def append(self, peer: PeerConfig) -> None:
        """Add a section for a new peer at the end."""
        lines = [f"{name} = {', '.join(items)}" for name, _, items in _differences("Peer", None, peer) if items]
        self._appended += [line + self._end for line in ("", "[Peer]", *lines)]

    def delete(self, block: Block) -> None:
        """Delete a section, with the comments directly above and below it and the blank lines after it."""
        first, last = block.headers[0], _last_line(block)
        while self._is_comment(first - 1):
            first -= 1
        below = last
        while self._is_comment(below + 1):
            below += 1
        if not self._is_header(below + 1):
            last = below
        while last + 1 < len(self._lines) and not self._lines[last].strip():
            last += 1
        self._now |= dict.fromkeys(range(first, last + 1))

    def _put(self, number: int, text: str, form: re.Pattern[str]) -> None:
        match = form.fullmatch(self._lines[number - 1])
        assert match is not None, "a line with a key"
        before, value, comment, end = match.groups()
        if value != text:
            self._now[number] = f"{before}{text}{comment}{end}"

    def _is_comment(self, number: int) -> bool:
        return 0 < number <= len(self._lines) and self._lines[number - 1].lstrip().startswith("#")

    def _is_header(self, number: int) -> bool:
        return number <= len(self._lines) and self._lines[number - 1].lstrip().startswith("[")


def _differences(
    section: str, before: InterfaceConfig | PeerConfig | None, after: InterfaceConfig | PeerConfig
) -> Iterator[tuple[str, bool, list[str]]]:
    """Each key whose value differs: its name, whether an item takes a whole line, and the items of `after`.

    Raises ConfigError for a line break within an item, because the rest would become a line of its own.
    """
    if isinstance(after, PeerConfig) and (not isinstance(before, PeerConfig) or before.name != after.name):
        yield NAME, True, _one_line([after.name] if after.name else [])
    for key in (*ROWS, *COMMENTS):
        if key.section == section:
            items = _items(key, after)
            if before is None or _items(key, before) != items:
                yield key.name, key.form == "raw", _one_line(items)


def _one_line(items: list[str]) -> list[str]:
    if any("\n" in item for item in items):
        raise ConfigError(_CHARACTERS)
    return items


def _items(key: Key, config: InterfaceConfig | PeerConfig) -> list[str]:
    """The texts of a key's values; none if the value is the default."""
    if key.name == "DNS" and isinstance(config, InterfaceConfig):
        return [*config.dns, *config.dns_search]
    value = getattr(config, key.field)
    if value == _DEFAULTS[key.field]:
        return []
    return [_text(key, item) for item in (value if key.form in ("list", "words", "raw") else (value,))]


def _text(key: Key, value: Any) -> str:
    if isinstance(value, PrivateKey | PublicKey | PresharedKey):
        return value.base64()
    if key.name == "FwMark":
        return f"{value:#x}"
    if isinstance(value, bool):
        return ("off", "on")[value] if key in COMMENTS else str(value).lower()
    return str(value)


def _unordered(config: InterfaceConfig) -> tuple[Any, ...]:
    return replace(config, peers=()), frozenset(config.peers)
