"""Proxies and forwards to run through a tunnel: wireproxy's sections of a wg-quick file, and ssh's -L syntax.

A wireproxy file is a wg-quick file with extra sections for proxies and forwards. `split` takes those out and blanks
their lines, so that `wgquick.parse` reads the rest with the right line numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple

from wgpy.config.redact import shown
from wgpy.config.wgquick import ConfigFileError, Problem
from wgpy.errors import ConfigError

_PLACE: Final = re.compile(r"(?:(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\[\]:\s]*)):)?([0-9]{1,5})")
MAX_CREDENTIAL: Final = 255  # bytes
_COMMENT: Final = re.compile(r"(?:^|\s)[#;].*")


class Place(NamedTuple):
    """A host and a port; an empty host means all addresses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host or '*'}:{self.port}"


@dataclass(frozen=True, slots=True)
class Forward:
    """Forwards `listen` to `target`: from this host into the tunnel, or from the tunnel to this host if `reverse`."""

    listen: Place
    target: Place
    reverse: bool = False
    protocol: Literal["tcp", "udp"] = "tcp"

    def __str__(self) -> str:
        where = " in the tunnel" if self.reverse else ""
        return f"{self.protocol} {self.listen}{where} -> {self.target}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy on this host. If it has a `username`, clients must give that and the password."""

    kind: Literal["socks5", "http"]
    listen: Place
    username: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Raises ConfigError if only one of the two is set, or one is too long for SOCKS5."""
        if bool(self.username) != bool(self.password):
            raise ConfigError(
                "the password is missing; a user name needs one"
                if self.username
                else "the user name is missing; a password needs one"
            )
        if max(len(self.username.encode()), len(self.password.encode())) > MAX_CREDENTIAL:
            raise ConfigError(f"a user name or password may have at most {MAX_CREDENTIAL} bytes (RFC 1929)")


@dataclass(frozen=True, slots=True)
class Services:
    """All proxies and forwards of a file."""

    proxies: tuple[Proxy, ...] = ()
    forwards: tuple[Forward, ...] = ()
    stdio: Place | None = None
    config: str = ""  # from WGConfig: the file that has [Interface] and [Peer] instead of this one


def parse_place(text: str, *, host: str = "") -> Place:
    """Read HOST:PORT, [IPV6]:PORT, or PORT alone, which means that port of `host`. Raises ConfigError."""
    match = _PLACE.fullmatch(text.strip())
    if match is None:
        wanted = "[HOST:]PORT" if host else "HOST:PORT or [IPV6]:PORT"
        raise ConfigError(f"expected {wanted}, not {shown(text)}")
    if int(match[3]) > 0xFFFF:
        raise ConfigError(f"expected a port number, 0 to 65535, not {shown(match[3])}")
    if match[1]:
        try:
            ip_address(match[1])
        except ValueError:
            raise ConfigError(f"{shown(match[1])} is not an IPv6 address") from None
    return Place(match[1] or match[2] or ("" if ":" in text else host), int(match[3]))


def parse_forward(text: str, *, reverse: bool = False) -> Forward:
    """Read [HOST:]PORT:HOST:PORT, as for `ssh -L`, with /udp at the end for UDP. Raises ConfigError.

    Without the first host, a forward listens on 127.0.0.1, and a reverse one on all addresses of the tunnel.
    """
    words, slash, protocol = text.partition("/")
    parts = re.findall(r"\[[^\]]*\]|[^:]+|(?<=:)(?=:)|^(?=:)", words)
    if (slash and protocol not in ("tcp", "udp")) or len(parts) not in (3, 4):
        raise ConfigError(f"expected [HOST:]PORT:HOST:PORT or the same with /udp, not {shown(text)}")
    *listen, host, port = parts
    try:
        at = parse_place(":".join(listen), host="" if reverse else "127.0.0.1")
        to = parse_place(f"{host}:{port}")
    except ConfigError as error:
        raise ConfigError(f"{shown(text)}: {error}") from None
    if not to.host or not to.port:
        raise ConfigError(f"{shown(text)}: expected a host and a port to forward to")
    return Forward(at, to, reverse, "udp" if protocol == "udp" else "tcp")


# The sections and their keys, as wireproxy's documentation spells them; files may have them in any case.
SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Socks5": ("BindAddress", "Username", "Password"),
    "http": ("BindAddress", "Username", "Password"),
    "TCPClientTunnel": ("BindAddress", "Target"),
    "UDPProxyTunnel": ("BindAddress", "Target"),
    "TCPServerTunnel": ("ListenPort", "Target"),
    "STDIOTunnel": ("Target",),
}
_KEYS: Final = {section.lower(): {key.lower(): key for key in keys} for section, keys in SECTIONS.items()}
_OPTIONAL: Final = {"username", "password"}
_QUOTES: Final = "unclear whether the # or ; starts a comment: put the value in quotes, and a comment on its own line"


def is_wireproxys(text: str) -> bool:
    """Whether a file has any of wireproxy's sections, right or wrong, or its WGConfig."""
    try:
        return split(text)[1] != Services()
    except ConfigFileError:
        return True


def split(text: str, filename: str = "") -> tuple[str, Services]:
    """Split a file into its text without wireproxy's sections, and those. Raises ConfigFileError with every problem."""
    services = Services()
    rest: list[str] = []
    problems: list[Problem] = []
    section, begun, values = "", 0, dict[str, str]()

    def end_section() -> None:
        nonlocal services
        if not section:
            return
        try:
            services = _with(services, section, values)
        except ConfigError as error:
            problems.append(Problem(filename, begun, "", f"[{section}]: {error}"))

    seen_any = False
    for number, line in enumerate(text.split("\n"), 1):
        words = _COMMENT.sub("", line).strip()
        if words.startswith("["):
            end_section()
            seen_any = True
            name = words.strip("[]").strip()
            section, begun, values = (name if name.lower() in _KEYS else ""), number, {}
        elif section and words:
            key, equals, value = (part.strip() for part in words.partition("="))
            if not equals or key.lower() not in _KEYS[section.lower()]:
                expected = ", ".join(_KEYS[section.lower()].values())
                written = key if equals and key.isascii() and key.isalpha() and len(key) < 20 else ""
                problems.append(Problem(filename, number, written, f"expected one of {expected} in [{section}]"))
            if key.lower() in _OPTIONAL:
                value = _credential(line.partition("=")[2].strip(), Problem(filename, number, key, _QUOTES), problems)
            values[key.lower()] = value
        elif not seen_any and words.lower().partition("=")[0].strip() == "wgconfig":
            services = replace(services, config=words.partition("=")[2].strip().strip('"'))
            line = ""
        rest.append("" if section else line)
    end_section()
    if problems:
        raise ConfigFileError(tuple(problems))
    return "\n".join(rest), services


def _credential(text: str, unclear: Problem, problems: list[Problem]) -> str:
    """Read a user name or password: everything within quotes, or else all of it, which must not look like a comment."""
    for quote in ('"""', '"', "'", "`"):
        if len(text) >= 2 * len(quote) and text.startswith(quote) and text.endswith(quote):
            return text[len(quote) : -len(quote)]
    if _COMMENT.search(text):
        problems.append(unclear)
    return text


def _with(services: Services, section: str, values: dict[str, str]) -> Services:
    """Add one section to the services."""
    kind = section.lower()
    if missing := [name for key, name in _KEYS[kind].items() if key not in _OPTIONAL and key not in values]:
        raise ConfigError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if kind in ("socks5", "http"):
        user, password = values.get("username", ""), values.get("password", "")
        if not user and not password and _OPTIONAL & values.keys():
            raise ConfigError("the user name and the password are empty; delete both lines if clients need none")
        listen = parse_place(values["bindaddress"], host="127.0.0.1")
        proxy = Proxy("http" if kind == "http" else "socks5", listen, user, password)
        return replace(services, proxies=(*services.proxies, proxy))
    target = parse_place(values["target"])
    if kind == "stdiotunnel":
        return replace(services, stdio=target)
    reverse = kind == "tcpservertunnel"
    listen = parse_place(values["listenport" if reverse else "bindaddress"], host="" if reverse else "127.0.0.1")
    forward = Forward(listen, target, reverse, "udp" if kind == "udpproxytunnel" else "tcp")
    return replace(services, forwards=(*services.forwards, forward))
