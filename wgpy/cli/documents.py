"""Manual pages, generated from the command line's parsers and the table of keys.

`make install` runs `python -m wgpy.cli.documents man|conf|bash|zsh|fish`, which prints a page or a shell's completion.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from wgpy import __version__
from wgpy.cli.arguments import commands
from wgpy.cli.commands import parser
from wgpy.cli.completion import bash, fish, zsh
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
    "# ClampMss": "on lowers the segment size that TCP connections of other hosts through this one agree on to what "
    "fits into the tunnel. Off by default.",
    "# Workers": "How many processes share the peers, like --workers. With auto, the default, it is one per core, but "
    "no more than 8 or than peers.",
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
    "WGPY_EVENTS, WGPY_METRICS, WGPY_KEYLOG, WGPY_WORKERS": "The same as --events, --metrics, --keylog and --workers, "
    "for up, run and serve.",
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
