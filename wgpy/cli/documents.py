"""Manual pages and shell completion, generated from the command line's parsers and the table of keys.

`make install` runs `python -m wgpy.cli.documents man|conf|bash|zsh|fish`, which prints one of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from wgpy import __version__
from wgpy.cli.commands import parser
from wgpy.cli.show import _SCRIPTS
from wgpy.config import wgquick
from wgpy.daemon.uapi_client import DIRECTORY

MEANINGS: Final = {
    "PrivateKey": "The interface's private key. Without one, nothing can be sent or received.",
    "ListenPort": "The UDP port to listen on. Without it, any free port.",
    "FwMark": "The firewall mark of the encrypted datagrams, for policy routing. Off by default.",
    "Address": "The interface's addresses. May be given several times.",
    "MTU": "The interface's MTU. Without it, the smallest MTU on the routes to the endpoints, less 80.",
    "DNS": "Name servers and search domains to use while the interface is up. May be given several times.",
    "Table": "The routing table for routes to the allowed IPs. With auto, the default, a default route gets a table of "
    "its own.",
    "PreUp": "A command for bash to run before the interface is configured; in it, %i is the interface's name. May be "
    "given several times.",
    "PostUp": "A command to run when the interface is up. May be given several times.",
    "PreDown": "A command to run before the interface is taken down. May be given several times.",
    "PostDown": "A command to run after the interface is deleted. May be given several times.",
    "SaveConfig": "Whether `down` first writes the interface's state to the file, as `wgpy save` does. Off by default.",
    "PublicKey": "The peer's public key. Required, and different for each peer.",
    "PresharedKey": "A secret that both ends add to the handshake, against future quantum computers.",
    "AllowedIPs": "The networks that are routed to the peer, and from which it may send. May be given several times.",
    "Endpoint": "Where to reach the peer, until it sends from another address.",
    "PersistentKeepalive": "How often to send a packet even without data, to keep a NAT's mapping. Off by default.",
    "# Name": "The peer's name in all output, and the name of a client for wgpy client. # friendly_name is the same.",
    "# UdpGso": "off sends datagrams one at a time, without UDP segmentation offload, like --no-udp-gso.",
    "# TunOffload": "off reads and writes packets of the interface one at a time, like --no-tun-offload.",
    "# Endpoint": "Above the first [Peer] of a gateway: where its clients reach it, for wgpy client add.",
    "#!": "Begins each line of a client that wgpy client disable has switched off; enable takes it away.",
}
WIREPROXY: Final = {
    "WGConfig": "Before the first section: the file with [Interface] and [Peer], if they are not in this one.",
    "[Socks5]": "Serve SOCKS5 at BindAddress. With Username and Password, clients must give both.",
    "[http]": "Serve an HTTP proxy at BindAddress. Username and Password as in [Socks5].",
    "[TCPClientTunnel]": "Forward TCP from BindAddress on this host to Target in the tunnel.",
    "[UDPProxyTunnel]": "Forward UDP from BindAddress on this host to Target in the tunnel.",
    "[TCPServerTunnel]": "Forward TCP from ListenPort in the tunnel to Target as this host reaches it.",
    "[STDIOTunnel]": "Connect standard input and output to Target in the tunnel.",
}
_WIREPROXY: Final = (
    "wgpy reads wireproxy's files, too: wgpy proxy serves all of them, wgpy forward the forwards, wgpy stdio the last."
)
ENVIRONMENT: Final = {
    "WG_ENDPOINT_RESOLUTION_RETRIES": "How often to retry a name that does not resolve: 15 by default, or infinity.",
    "WG_COLOR_MODE": "always or never: whether `show` uses colours. By default it does on a terminal.",
    "WG_HIDE_KEYS": "never: `show` prints private and preshared keys.",
    "WGPY_NO_UDP_GSO, WGPY_NO_TUN_OFFLOAD": "1: the same as --no-udp-gso and --no-tun-offload, for all commands and "
    "for programs that use the library.",
    "WGPY_EVENTS, WGPY_METRICS, WGPY_KEYLOG": "The same as --events, --metrics and --keylog, for up, run and serve.",
    "LOG_LEVEL, WG_PROCESS_FOREGROUND, WG_TUN_FD, WG_UAPI_FD": "The same as for wireguard-go; used by serve.",
}
FILES: Final = {
    "/etc/wireguard/NAME.conf": "The configuration of interface NAME: wgpy.conf(5).",
    f"{DIRECTORY}/NAME.sock": "The control socket of its daemon, for wg(8) and wgpy.",
    "/run/wgpy/NAME.log": "The log of a daemon in the background.",
    "/run/wgpy/NAME.peers": "The endpoints of peers with sessions, with which the next daemon starts handshakes.",
    "/var/lib/wgpy/timestamp-floor": "The latest timestamp of a handshake.",
}
EXIT: Final = {
    "0": "Done.",
    "1": "Failed; a message on standard error says why.",
    "2": "Wrong usage of the command line.",
    "130": "Interrupted.",
}


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


def commands() -> list[Command]:
    """All commands, in the order of `wgpy -h`."""
    (verbs,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in verbs._choices_actions}
    return [_command(name, summaries[name], verb) for name, verb in verbs.choices.items() if name in summaries]


def _command(name: str, summary: str, verb: argparse.ArgumentParser) -> Command:
    verb.formatter_class = partial(argparse.HelpFormatter, width=10_000)  # no line breaks
    usage = " ".join(verb.format_usage().removeprefix("usage: ").split())
    arguments = tuple(_argument(verb, action) for action in verb._actions)
    return Command(name, summary % {}, usage, verb.description or "", verb.epilog or "", arguments)


def _argument(verb: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    value = "" if action.nargs == 0 else str(action.metavar or action.dest)
    text = verb._get_formatter()._expand_help(action) if action.help else ""
    choices = tuple(map(str, action.choices or (_SCRIPTS if value == "PARAMETER" else ())))
    return Argument(tuple(action.option_strings), value, text, choices, action.nargs == argparse.REMAINDER)


# Manual pages: man(7).


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _page(name: str, section: int, summary: str) -> Iterator[str]:
    yield f'.TH "{name.upper()}" "{section}" "" "wgpy {__version__}" "wgpy"'
    yield from (".SH NAME", f"{name} \\- {_roff(summary)}")


def _items(heading: str, items: dict[str, str], introduction: str = "") -> Iterator[str]:
    yield f".SH {heading}"
    if introduction:
        yield _roff(introduction)
    for term, text in items.items():
        yield from (".TP", f".B {_roff(term)}", _roff(text))


def man() -> str:
    """wgpy(8)."""
    top = parser()
    lines = [*_page("wgpy", 8, "WireGuard in pure Python")]
    lines += [".SH SYNOPSIS", ".B wgpy", ".I COMMAND", "\\&..."]
    lines += [".SH DESCRIPTION", _roff(top.description or ""), ".PP", _roff(top.epilog or ""), ".SH COMMANDS"]
    for command in commands():
        lines += [f".SS {_roff(command.usage)}", _roff(command.description)]
        for argument in command.arguments:
            if argument.help and argument.flags[:1] != ("-h",):
                head = ", ".join(f"\\fB{_roff(flag)}\\fR" for flag in argument.flags)
                lines += [".TP", f"{head} \\fI{_roff(argument.value)}\\fR".strip(), _roff(argument.help)]
        if command.epilog:
            lines += [".PP", _roff(command.epilog)]
    for heading, items in (("FILES", FILES), ("ENVIRONMENT", ENVIRONMENT), ("EXIT STATUS", EXIT)):
        lines += _items(heading, items)
    lines += [".SH SEE ALSO", ".BR wgpy.conf (5),", ".BR wg (8),", ".BR wg\\-quick (8)"]
    return "\n".join(lines) + "\n"


def conf() -> str:
    """wgpy.conf(5)."""
    lines = [*_page("wgpy.conf", 5, "the configuration of a tunnel, in wg-quick's format")]
    lines += [
        ".SH DESCRIPTION",
        "A file has one [Interface] section and a [Peer] section for each peer. Their lines are",
    ]
    lines += ['.IR key " = " value ,', "with keys in any case. A comment begins with # and ends with the line."]
    lines += [".B wgpy check", "reports every mistake in a file."]
    rows = wgquick.described_keys()
    for section in dict.fromkeys(section for section, _, _ in rows):
        items = {name: f"{MEANINGS[name]} Expected: {expected}." for of, name, expected in rows if of == section}
        lines += _items(f'"[{section}]"', {name: text for name, text in items.items() if not name.startswith("#")})
    expectations = {name: f" In [{section}]. Expected: {expected}." for section, name, expected in rows}
    own = {name: text + expectations.get(name, "") for name, text in MEANINGS.items() if name.startswith("#")}
    lines += _items('"KEYS IN COMMENTS"', own, "Only wgpy reads these; for other programs they are comments.")
    lines += _items('"SECTIONS OF WIREPROXY"', WIREPROXY, _WIREPROXY)
    lines += [".SH EXAMPLE", ".nf", "[Interface]", "PrivateKey = (what wgpy genkey printed)", "Address = 10.8.0.2/24"]
    lines += ["", "[Peer]", "PublicKey = (what wgpy pubkey printed over there)", "Endpoint = vpn.example.org:51820"]
    lines += ["AllowedIPs = 10.8.0.0/24", ".fi", ".SH SEE ALSO", ".BR wgpy (8),", ".BR wg (8),", ".BR wg\\-quick (8)"]
    return "\n".join(lines).replace("\n\n", "\n.PP\n") + "\n"


# Completion. The metavar of an argument says what to offer: INTERFACE, CONFIG, FILE, or its choices.


def _flags(options: list[Argument]) -> str:
    return " ".join(flag for option in options for flag in option.flags)


def bash() -> str:
    """A completion for bash, with or without bash-completion."""
    cases = []
    for command in commands():
        cases.append(f"    {command.name},-) words='{_flags(command.options)}' ;;")
        cases += [
            f"    {command.name},{flag}) {offer} ;;"
            for option in command.options
            if option.value and (offer := _offer(command, option, files="-"))
            for flag in option.flags
        ]
        for index, argument in enumerate(command.positionals):
            if offer := _offer(command, argument, files="!*.conf"):
                cases.append(f"    {command.name},{'*' if argument.rest else index}) {offer} ;;")
    valued = {flag for command in commands() for option in command.options if option.value for flag in option.flags}
    names = " ".join(command.name for command in commands())
    return _BASH.format(valued="|".join(sorted(valued)), names=names, cases="\n".join(cases))


def _offer(command: Command, argument: Argument, *, files: str) -> str:
    """The shell code that offers values of an argument; `files` is compgen's -X pattern for FILE, - for any file."""
    if argument.choices:
        return f"words='{' '.join(argument.choices)}'"
    match command.name, argument.value:
        case "show", "INTERFACE":
            return 'words="$(_wgpy_interfaces) all interfaces"'
        case _, "INTERFACE":
            return "words=$(_wgpy_interfaces)"
        case "down", "CONFIG":
            return "words=\"$(_wgpy_configs) $(_wgpy_interfaces)\" files='!*.conf'"
        case _, "CONFIG":
            return "words=$(_wgpy_configs) files='!*.conf'"
        case "client", "NAME":
            return "words=$(_wgpy_clients)"
        case "set", "SETTING":
            return "_wgpy_setting"
        case _, "FILE" | "COMMAND":
            return f"files='{files if argument.value == 'FILE' else '-'}'"
        case _, "DIR":
            return "files='*'"
    return ""


_BASH: Final = r"""# bash completion of wgpy
_wgpy_interfaces() {{
    wgpy show interfaces 2>/dev/null
}}

_wgpy_configs() {{
    local path
    for path in /etc/wireguard/*.conf; do
        path=${{path##*/}}
        [[ $path == '*.conf' ]] || printf '%s ' "${{path%.conf}}"
    done
}}

# The clients in the file that --config names.
_wgpy_clients() {{
    local index config=
    for index in "${{!COMP_WORDS[@]}}"; do
        [[ ${{COMP_WORDS[index]}} != --config ]] || config=${{COMP_WORDS[index + 1]-}}
    done
    [[ ! $config || ${{COMP_WORDS[*]}} == *' add '* ]] ||
        wgpy client list --config "$config" --json 2>/dev/null | sed -n 's/.*"name": "\(.*\)",/\1/p'
}}

# What may follow the words of `wgpy set INTERFACE`.
_wgpy_setting() {{
    case ${{COMP_WORDS[COMP_CWORD - 1]}} in
    peer) words=$(wgpy show "${{COMP_WORDS[2]}}" peers 2>/dev/null) ;;
    private-key | preshared-key) files=- ;;
    fwmark | persistent-keepalive) words=off ;;
    listen-port | endpoint | allowed-ips) ;;
    *)
        if [[ " ${{COMP_WORDS[*]:3:COMP_CWORD-3}} " == *' peer '* ]]; then
            words='peer remove preshared-key endpoint persistent-keepalive allowed-ips'
        else
            words='listen-port fwmark private-key peer'
        fi
        ;;
    esac
}}

_wgpy() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} place=0 index words= files=
    COMPREPLY=()
    for ((index = 2; index < COMP_CWORD; index++)); do
        case ${{COMP_WORDS[index]}} in
        {valued}) ((index++)) ;;
        -*) ;;
        *) ((place++)) ;;
        esac
    done
    if ((COMP_CWORD == 1)); then
        words='{names} --help --version'
    else
        ((index == COMP_CWORD)) || place=${{COMP_WORDS[COMP_CWORD - 1]}}  # the value of an option
        ((index > COMP_CWORD)) || [[ $current != -* ]] || place=-
        case ${{COMP_WORDS[1]}},$place in
{cases}
        esac
    fi
    words=${{words//[!a-zA-Z0-9_=+.\/ $'\n'-]/}}  # compgen -W would expand a $(command) in a name
    mapfile -t COMPREPLY < <(
        compgen -W "$words" -- "$current"
        [[ ! $files ]] || compgen -f -X "${{files#-}}" -- "$current"
        [[ ! $files ]] || compgen -d -- "$current"
    )
}}
complete -o filenames -F _wgpy wgpy
"""


def _quoted(text: str, special: str) -> str:
    """Escape a text for single quotes of a shell, and characters that are special to the completion system."""
    return "".join(f"\\{c}" if c in special else c for c in text).replace("'", "’")


def zsh() -> str:
    """A completion function for zsh's fpath."""
    values = {"INTERFACE": "_wgpy_interfaces", "CONFIG": "_wgpy_configs", "FILE": "_files"}
    cases = []
    for command in commands():
        specs = []
        for option in command.options:
            value = f":{option.value}:{values.get(option.value, ' ')}" if option.value else ""
            text = _quoted(option.help, "[]:\\")
            specs += [f"'{flag}[{text}]{value}'" for flag in option.flags]
        for argument in command.positionals:
            does = f"({' '.join(argument.choices)})" if argument.choices else values.get(argument.value, " ")
            specs.append(f"'{'*' if argument.rest else ''}:{argument.value}:{does}'")
        cases.append(f"        {command.name}) _arguments {' '.join(specs)} ;;")
    names = "\n".join(f"        '{c.name}:{_quoted(c.summary, ':')}'" for c in commands())
    return _ZSH.format(names=names, cases="\n".join(cases), directory=DIRECTORY)


_ZSH: Final = r"""#compdef wgpy
_wgpy_interfaces() {{
    local -a names=({directory}/*.sock(N:t:r))
    compadd -a names
}}

_wgpy_configs() {{
    local -a names=(/etc/wireguard/*.conf(N:t:r))
    compadd -a names
    _files -g '*.conf'
}}

_wgpy() {{
    local -a names=(
{names}
    )
    if ((CURRENT == 2)); then
        _describe command names
    else
        shift words
        ((CURRENT--))
        case $words[1] in
{cases}
        esac
    fi
}}

_wgpy "$@"
"""


def fish() -> str:
    """A completion for fish's vendor_completions.d."""
    names = "for path in {}/*.{}; string replace -r '.*/(.*)\\.{}$' '$1' $path; end"
    interfaces = f"({names.format(DIRECTORY, 'sock', 'sock')})"
    configs = f"({names.format('/etc/wireguard', 'conf', 'conf')}; __fish_complete_suffix .conf)"
    values = {"INTERFACE": interfaces, "CONFIG": configs, "FILE": "(__fish_complete_path)"}
    lines = ["# fish completion of wgpy", "complete -c wgpy -f"]
    for command in commands():
        text = _quoted(command.summary, "\\")
        lines.append(f"complete -c wgpy -n __fish_use_subcommand -a {command.name} -d '{text}'")
        seen = f"complete -c wgpy -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            flags = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in option.flags)
            takes = (" -rF" if option.value == "FILE" else " -x") if option.value else ""
            lines.append(f"{seen} {flags}{takes} -d '{_quoted(option.help, chr(92))}'")
        for argument in command.positionals:
            does = " ".join(argument.choices) or values.get(argument.value, "")
            if does:
                lines.append(f'{seen} -a "{does.replace("$", chr(92) + "$")}"')
    return "\n".join(lines) + "\n"


DOCUMENTS: Final = {"man": man, "conf": conf, "bash": bash, "zsh": zsh, "fish": fish}


def main() -> int:
    """Print the document that the argument names."""
    if len(sys.argv) != 2 or sys.argv[1] not in DOCUMENTS:
        print(f"usage: python -m wgpy.cli.documents {'|'.join(DOCUMENTS)}", file=sys.stderr)
        return 2
    print(DOCUMENTS[sys.argv[1]](), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
