"""The parser of wg-quick(8) files. The result still has the text, so nothing of the file is lost.

The grammar is that of wg(8), "CONFIGURATION FILE FORMAT", with wg-quick(8)'s own keys in [Interface]: the case of
section names and keys does not matter, nor does white space, and `#` starts a comment. Every key is one row of `ROWS`.

All problems of a file are reported together, and never repeat a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any, Final, Literal

from wgpy.config.redact import HIDDEN, shown
from wgpy.config.values import MTU_FOR_IPV6, EndpointName, InterfaceConfig, PeerConfig
from wgpy.constants import MAX_MTU, MAX_WORKERS, MIN_IPV6_MTU, MIN_MTU
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

_WHITE: Final = " \t\r"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x0c\x0e-\x1f\x7f]")
_ADDRESS: Final = re.compile(r"([0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?:/([0-9]{1,3}))?")
_SEARCH_DOMAIN: Final = re.compile(r"[\w.~][\w.-]*")
_NAME: Final = re.compile(r"\s*#\s*(?:friendly_)?name\s*=\s*(.*?)\s*", re.IGNORECASE)
_IN_COMMENT: Final = re.compile(r"\s*#\s*(\w+)\s*=\s*([^#]*?)\s*(?:#.*)?", re.ASCII)
NAME: Final = "# Name"  # among a block's keys
_TABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error or a warning about one line. `str()` is `file:line: key: message`."""

    filename: str
    """The file, as it was given to the parser; may be empty."""
    line: int
    """The line's number, from 1."""
    key: str
    """The key as the file spells it; empty when the line has none that may be shown."""
    message: str
    """What was expected."""

    def __str__(self) -> str:
        where = f"{self.filename}:{self.line}" if self.filename else f"line {self.line}"
        return ": ".join(filter(None, (where, self.key, self.message)))


class ConfigFileError(ConfigError):
    """A configuration file that cannot be used: `str()` has a line for each problem."""

    problems: tuple[Problem, ...]
    """Everything that is wrong in the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class WgQuickFile:
    """A file that was parsed. `str()` is its text, unchanged."""

    config: InterfaceConfig
    """What the file says."""
    warnings: tuple[Problem, ...]
    """What is allowed, but probably not meant."""
    lines: tuple[str, ...] = field(repr=False)
    """The text without its line breaks; it holds the secrets, so `repr` leaves it out."""
    blocks: tuple[Block, ...] = field(repr=False)
    """Where each section is: [Interface], all of them as one, then each [Peer]."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def strip(self) -> str:
        """The text without wg-quick's own keys, for `wg setconf` and `wg syncconf`."""
        lines = self.blocks[0].lines
        own = {number for key in ROWS if key.own for number in lines.get(key.name, ())}
        return "\n".join(line for number, line in enumerate(self.lines, 1) if number not in own)


def parse(text: str, filename: str = "") -> WgQuickFile:
    """Parse a configuration; `filename` is for messages. Whatever the text, raises nothing but ConfigFileError."""
    lines = text.split("\n")
    reader = _Reader(filename)
    values, peers = reader.read(lines)
    names = values.pop("dns", ())
    config = InterfaceConfig(
        **values,
        dns=tuple(filter(_is_server, names)),
        dns_search=tuple(name for name in names if not _is_server(name)),
        peers=tuple(PeerConfig(**peer) for peer in peers),
    )
    return WgQuickFile(config, tuple(reader.warnings), tuple(lines), reader.blocks())


def read_wg(text: str, filename: str = "") -> tuple[dict[str, Any], list[dict[str, Any]], tuple[Problem, ...]]:
    """Parse a file of wg(8), in which wg-quick's own keys are errors. Raises ConfigFileError.

    Returns the settings of the interface, those of each peer, and the warnings. Settings are named by the fields of
    InterfaceConfig and PeerConfig; those that the file leaves out are missing.
    """
    reader = _Reader(filename, wg_only=True)
    values, peers = reader.read(text.split("\n"))
    return values, peers, tuple(reader.warnings)


def read_value(name: str, text: str) -> Any:
    """Parse a value of the key `name`. Raises ConfigError, which does not repeat a secret."""
    key = (KEYS | _COMMENT_KEYS)[name.lower()]
    try:
        return key.parse(text)
    except ValueError:
        raise ConfigError(f"{name}: expected {key.expected}{key.not_this(text)}") from None


def described_keys() -> list[tuple[str, str, str]]:
    """All keys: the section, name and expected value of each. The keys in comments come last."""
    named = [(key.section, key.name, key.expected) for key in (*ROWS, *COMMENTS)]
    return [*named, ("Peer", NAME, "any text")]


# Parsers of values. They raise ValueError, like those of keys and ipaddress.


def _number(lowest: int, highest: int, words: dict[str, Any] | None = None, *, hexadecimal: bool = False) -> _Parse:
    """A parser of decimal numbers in a range, if `hexadecimal` also with 0x, and of `words` in any case."""
    digits = re.compile(r"[0-9]{1,20}|0[xX][0-9A-Fa-f]{1,16}" if hexadecimal else r"[0-9]{1,20}")

    def read(text: str) -> Any:
        if words and text.lower() in words:
            return words[text.lower()]
        if not digits.fullmatch(text):
            raise ValueError
        number = int(text, 16 if text[:2] in ("0x", "0X") else 10)
        if not lowest <= number <= highest:
            raise ValueError
        return number

    return read


def _boolean(text: str) -> bool:
    return bool(("false", "true").index(text.lower()))


def _switch(text: str) -> bool:
    return bool(("off", "on").index(text.lower()))


def _address(text: str) -> IPv4Interface | IPv6Interface:
    """Parse an address, by default with /32 or /128. ipaddress alone would accept netmasks and scopes, too."""
    if not _ADDRESS.fullmatch(text):
        raise ValueError
    return ip_interface(text)


def _host_bits(interface: IPv4Interface | IPv6Interface) -> str:
    return (
        "" if interface.ip == interface.network.network_address else f"has host bits set; it means {interface.network}"
    )


def _dns(text: str) -> str:
    """Parse a server's address or a search domain. Like wg-quick, take what looks like an address for one."""
    if _is_server(text):
        return str(ip_address(text))
    if not _SEARCH_DOMAIN.fullmatch(text):
        raise ValueError
    return text


def _is_server(text: str) -> bool:
    return ":" in text or not text.strip("0123456789.")


def _table(text: str) -> int | str:
    if _TABLE_NAME.fullmatch(text):
        return text.lower() if text.lower() in ("auto", "off") else text
    return int(_number(0, 0xFFFFFFFF, hexadecimal=True)(text))


# The table of keys.

_Parse = Callable[[str], Any]
Section = Literal["Interface", "Peer"]


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    section: Section
    field: str  # of InterfaceConfig or PeerConfig
    parse: _Parse
    expected: str
    # One value, wg's list with commas (no empty items), wg-quick's list with commas or spaces, or the rest of the line.
    form: Literal["one", "list", "words", "raw"] = "one"
    own: bool = False  # one of wg-quick's own, which `wg` does not know
    hidden: bool = False  # errors never show its value
    doubt: Callable[[Any], str] = lambda value: ""  # the warning about a valid value, if any

    def items(self, value: str) -> list[str]:
        """The texts to parse, as written. wg-quick takes an empty value for none."""
        if self.form == "words":
            return value.replace(",", " ").split()
        if self.form == "raw" or self.own:
            return [value] if value else []
        return [value] if self.form == "one" else [item.strip(_WHITE) for item in value.split(",")] if value else []

    def read(self, item: str) -> Any:
        """Parse one of them; `wg` ignores white space within values. Raises ValueError."""
        return self.parse(item if self.form == "raw" or self.own else _squeeze(item))

    def not_this(self, item: str, value: str = "") -> str:
        """The end of an error message about a wrong item of a value."""
        return "" if self.hidden else f", not {shown(item, value)}" if item else ", not nothing"


def _squeeze(text: str) -> str:
    return text.translate({ord(character): None for character in _WHITE})


def _hook(name: str, field: str) -> Key:
    return Key(name, "Interface", field, str, "a command", "raw", own=True)


_BASE64: Final = "the 44 base64 characters that `wg {}` prints"
_MARK: Final = "off or a 32-bit number, in decimal or in hexadecimal with 0x"
_LOCAL: Final = "addresses with prefix lengths, such as 10.0.0.2/24 or fd00::2/64"
_NETWORKS: Final = "networks separated by commas, without + or -, such as 10.0.0.0/24 or fd00::/64"
_REMOTE: Final = "vpn.example.org:51820, 192.0.2.1:51820 or [2001:db8::1]:51820, with a port number other than 0"
_WORKERS: Final = f"auto or a number of processes, 1 to {MAX_WORKERS}"
_KEEPALIVE: Final = "off or a number of seconds, 0 to 65535"

ROWS: Final = (
    Key("PrivateKey", "Interface", "private_key", PrivateKey.from_base64, _BASE64.format("genkey"), hidden=True),
    Key("ListenPort", "Interface", "listen_port", _number(0, 0xFFFF), "a port number, 0 to 65535"),
    Key("FwMark", "Interface", "fwmark", _number(0, 0xFFFFFFFF, {"off": 0}, hexadecimal=True), _MARK),
    Key("Address", "Interface", "addresses", _address, _LOCAL, "words", own=True),
    Key("MTU", "Interface", "mtu", _number(MIN_MTU, MAX_MTU), "a number of bytes, 68 to 65535", own=True),
    Key("DNS", "Interface", "dns", _dns, "addresses of name servers, or search domains", "words", own=True),
    Key("Table", "Interface", "table", _table, "auto, off, or a routing table's number or name", own=True),
    _hook("PreUp", "pre_up"),
    _hook("PostUp", "post_up"),
    _hook("PreDown", "pre_down"),
    _hook("PostDown", "post_down"),
    Key("SaveConfig", "Interface", "save_config", _boolean, "true or false", own=True),
    Key("PublicKey", "Peer", "public_key", PublicKey.from_base64, _BASE64.format("pubkey"), hidden=True),
    Key("PresharedKey", "Peer", "preshared_key", PresharedKey.from_base64, _BASE64.format("genpsk"), hidden=True),
    Key("AllowedIPs", "Peer", "allowed_ips", _address, _NETWORKS, "list", doubt=_host_bits),
    Key("Endpoint", "Peer", "endpoint", EndpointName.parse, _REMOTE),
    Key("PersistentKeepalive", "Peer", "persistent_keepalive", _number(0, 0xFFFF, {"off": 0}), _KEEPALIVE),
)
KEYS: Final = {key.name.lower(): key for key in ROWS}

# wgpy's own keys. They are in comments, so that wg-quick and other programs can still read the file.
COMMENTS: Final = (
    Key("# UdpGso", "Interface", "udp_gso", _switch, "on or off"),
    Key("# TunOffload", "Interface", "tun_offload", _switch, "on or off"),
    Key("# ClampMss", "Interface", "clamp_mss", _switch, "on or off"),
    Key("# Workers", "Interface", "workers", _number(1, MAX_WORKERS, {"auto": "auto"}), _WORKERS),
)
_COMMENT_KEYS: Final = {key.name.lower(): key for key in COMMENTS}
_IN_COMMENTS: Final = {name[2:].lower(): name for name in (NAME, *(key.name for key in COMMENTS))}
# Keys of AmneziaWG, a variant of WireGuard with disguised messages.
_AMNEZIA: Final = re.compile(r"jc|jmin|jmax|[sh][1-4]|i[1-5]|j[1-3]|itime|advancedsecurity")
_SECTIONS: Final[dict[str, Section]] = {"[interface]": "Interface", "[peer]": "Peer"}


@dataclass(slots=True)
class Block:
    """One section: its `values` by field, and by key the numbers of the `lines` that set it, from 1."""

    section: Section
    headers: list[int] = field(default_factory=list)  # line numbers of its headers, from 1
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)


class _Reader:
    """Reads the lines of a file and collects values and problems."""

    def __init__(self, filename: str, *, wg_only: bool = False) -> None:
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self._filename = filename
        self._wg_only = wg_only
        self._interface = Block("Interface")
        self._peers: list[Block] = []
        self._block: Block | None = None
        self._amnezia: list[tuple[int, str]] = []
        self._binary = False
        self._skipping = False  # in a section with an unknown name, whose keys cannot be checked

    def read(self, lines: Iterable[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Read the values of the interface and of each peer, by field. Raises ConfigFileError."""
        for number, line in enumerate(lines, 1):
            self._read_line(number, line)
        return self._finish()

    def blocks(self) -> tuple[Block, ...]:
        return (self._interface, *self._peers)

    def _read_line(self, number: int, line: str) -> None:
        if _CONTROL.search(line):
            if not self._binary:  # reported once: a file in another encoding has one in every line
                self._error(number, "", "has a control character; expected text in UTF-8")
            self._binary = True
            return
        code = line.partition("#")[0].strip(_WHITE)
        written, equals, value = (part.strip(_WHITE) for part in code.partition("="))
        key = KEYS.get(_squeeze(written).lower())
        if code.startswith("["):
            self._begin(number, _squeeze(code).lower())
        elif not code or self._skipping:
            self._read_comment(number, line)
        elif not equals:
            self._error(number, "", "expected [Interface], [Peer] or KEY = VALUE")
        elif key is None or (key.own and key.name.lower() != written.lower()):
            self._unknown_key(number, written, value)
        elif key.own and self._wg_only:
            self._error(number, key.name, "line unrecognized; only wg-quick files have this key")
        elif self._block is None:
            self._error(number, key.name, f"not in a section; expected [{key.section}] above it")
        elif self._block.section != key.section:
            self._error(number, key.name, f"belongs in [{key.section}], not in [{self._block.section}]")
        else:
            raw = line.partition("=")[2].strip(_WHITE)
            self._read_value(number, key, raw if key.form == "raw" else value, self._block)

    def _read_comment(self, number: int, comment: str) -> None:
        """Read a comment: it may have a peer's name, as several tools write it, or one of wgpy's own keys."""
        if self._wg_only or self._skipping:
            return
        match = _NAME.fullmatch(comment)
        if match and self._block is not None and self._block.section == "Peer":
            self._block.values["name"] = match[1]
            self._block.lines.setdefault(NAME, []).append(number)
        match = _IN_COMMENT.fullmatch(comment)
        key = _COMMENT_KEYS.get(f"# {match[1]}".lower()) if match else None
        if match and key:
            if self._block is not None and self._block.section == key.section:
                self._read_value(number, key, match[2], self._block)
            else:
                self._warn(number, key.name, f"belongs in [{key.section}]; ignored here")

    def _finish(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        peers: dict[PublicKey, dict[str, Any]] = {}
        lines: dict[PublicKey, int] = {}
        for block in self._peers:
            line = block.lines.get("PublicKey", [0])[-1]
            public_key = block.values.get("public_key")
            if not line:
                self._error(
                    block.headers[0], "PublicKey", f"missing in this [Peer]; expected {KEYS['publickey'].expected}"
                )
            elif public_key is not None:
                if public_key in peers:
                    rule = (
                        "these settings replace the earlier ones, and AllowedIPs is replaced even if it is missing here"
                    )
                    self._warn(line, "PublicKey", f"same peer as in line {lines[public_key]}; {rule}")
                networks = tuple(interface.network for interface in block.values.get("allowed_ips", ()))
                peers[public_key] = peers.get(public_key, {}) | block.values | {"allowed_ips": networks}
                lines[public_key] = line
        self._warn_of_overlaps()
        self._check_keys()
        self._check_mtu()
        if self._amnezia:
            number, first = self._amnezia[0]
            others = ", ".join(dict.fromkeys(name for _, name in self._amnezia[1:]))
            what = f"a key of AmneziaWG, like {others}" if others else "a key of AmneziaWG"
            remedy = "delete these lines if the other end is plain WireGuard; otherwise use AmneziaWG"
            self._error(number, first, f"{what}; WireGuard does not understand its disguised messages: {remedy}")
        if self.errors:
            raise ConfigFileError(tuple(sorted(self.errors, key=lambda problem: problem.line)))
        self.warnings.sort(key=lambda problem: problem.line)
        return self._interface.values, list(peers.values())

    def _check_keys(self) -> None:
        """Warn of a peer with the interface's own key, and refuse the private key in the place of another."""
        private_key = self._interface.values.get("private_key")
        if private_key is None or not self._peers:
            return
        for block in self._peers:
            public_key, psk = block.values.get("public_key"), block.values.get("preshared_key")
            if public_key == private_key.public_key:
                self._warn(block.lines["PublicKey"][-1], "PublicKey", "is this interface's own; the peer is ignored")
            for name, key in (("PublicKey", public_key), ("PresharedKey", psk)):
                if key is not None and bytes(key) == bytes(private_key):
                    wrong = "is this interface's PrivateKey, which must stay secret"
                    self._error(block.lines[name][-1], name, f"{wrong}; expected {KEYS[name.lower()].expected}")

    def _check_mtu(self) -> None:
        mtu = self._interface.values.get("mtu") or MIN_IPV6_MTU
        if mtu >= MIN_IPV6_MTU:
            return
        number = self._interface.lines["MTU"][-1]
        if any(address.version == 6 for address in self._interface.values.get("addresses", ())):
            self._error(number, "MTU", f"expected {MTU_FOR_IPV6}")
        elif any(network.version == 6 for block in self._peers for network in block.values.get("allowed_ips", ())):
            self._warn(number, "MTU", f"less than the {MIN_IPV6_MTU} that the IPv6 networks in AllowedIPs need")

    def _warn_of_overlaps(self) -> None:
        """Warn of overlapping allowed IPs. /0 and its halves are exempt: they are meant for whatever is left."""
        if len({block.values.get("public_key") for block in self._peers}) < 2:
            return
        owners: dict[tuple[int, int, int], tuple[Any, Block]] = {}  # by version, length, and that many bits
        lengths: dict[int, set[int]] = {4: set(), 6: set()}
        for block in self._peers:
            for network in (interface.network for interface in block.values.get("allowed_ips", ())):
                bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
                _, owner = owners.get((network.version, network.prefixlen, bits), (network, block))
                self._warn_of_overlap(block, owner, f"{network} also belongs to", "; the last one gets it")
                owners[network.version, network.prefixlen, bits] = network, block
                lengths[network.version].add(network.prefixlen)
        for (version, length, bits), (network, block) in owners.items():
            for shorter in lengths[version]:
                if 1 < shorter < length and (found := owners.get((version, shorter, bits >> (length - shorter)))):
                    what = f"{network} is part of {found[0]} of"
                    self._warn_of_overlap(block, found[1], what, ", and is taken from it")

    def _warn_of_overlap(self, block: Block, owner: Block, what: str, so: str) -> None:
        if owner.values.get("public_key") != block.values.get("public_key"):
            message = f"{what} the peer in line {owner.headers[0]}{so}"
            self._warn(block.lines["AllowedIPs"][-1], "AllowedIPs", message)

    def _begin(self, number: int, header: str) -> None:
        section = _SECTIONS.get(header)
        self._skipping = section is None
        if section is None:
            near = _nearest(header, _SECTIONS)
            hint = f"did you mean [{_SECTIONS[near]}]?" if near else "expected [Interface] or [Peer]"
            self._error(number, "", f"unknown section; {hint}")
            return
        if section == "Peer":
            self._peers.append(Block(section))
        self._block = self._peers[-1] if section == "Peer" else self._interface
        self._block.headers.append(number)

    def _unknown_key(self, number: int, written: str, value: str) -> None:
        """Report an unknown key. If it may be part of a secret, as when a line was broken in two, it is not shown."""
        name = written if written.isascii() and written.isalpha() else ""
        if _AMNEZIA.fullmatch(_squeeze(written).lower()):
            self._amnezia.append((number, written))
        elif own := _IN_COMMENTS.get(_squeeze(written).lower()):
            self._error(number, own[2:], f"a key of wgpy's own, which must be in a comment: {own} = ...")
        elif near := _nearest(_squeeze(written).lower(), KEYS):
            self._error(number, name, f"unknown key; did you mean {KEYS[near].name}?")
        else:
            name = name if value and shown(name, written + value) != HIDDEN else ""
            names = ", ".join(key.name for key in ROWS if self._block is None or key.section == self._block.section)
            self._error(number, name, f"unknown key; expected one of {names}")

    def _read_value(self, number: int, key: Key, value: str, block: Block) -> None:
        if key.form == "one" and key.name in block.lines:
            self._warn(number, key.name, f"already set in line {block.lines[key.name][-1]}; this line replaces it")
        block.lines.setdefault(key.name, []).append(number)
        values = []
        for item in key.items(value):
            try:
                values.append(key.read(item))
            except ValueError:
                self._error(number, key.name, f"expected {key.expected}{key.not_this(item, value)}")
            else:
                if doubt := key.doubt(values[-1]):
                    self._warn(number, key.name, f"{item} {doubt}")
        if key.form != "one":
            block.values[key.field] = (*block.values.get(key.field, ()), *values)
            if key.name == "Address":
                self._drop_repetitions(number, block)
        elif values:
            block.values[key.field] = values[0]
        else:
            block.values.pop(key.field, None)

    def _drop_repetitions(self, number: int, block: Block) -> None:
        """Drop repeated addresses, which the kernel would refuse."""
        unique = dict.fromkeys(block.values["addresses"])
        if len(unique) < len(block.values["addresses"]):
            block.values["addresses"] = tuple(unique)
            self._warn(number, "Address", "repeats an address")

    def _error(self, line: int, key: str, message: str) -> None:
        self.errors.append(Problem(self._filename, line, key, message))

    def _warn(self, line: int, key: str, message: str) -> None:
        self.warnings.append(Problem(self._filename, line, key, message))


def _nearest(text: str, names: dict[str, Any]) -> str:
    from difflib import get_close_matches  # imported only for a file with a mistake

    return next(iter(get_close_matches(text, names, 1)), "")
