"""`wgpy exec`, `proxy`, `forward` and `stdio`: using a tunnel without privileges."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wgpy.cli.files import CONFIG_HELP, locate, read_source
from wgpy.cli.interface import add_switches, permitted
from wgpy.config import wgquick
from wgpy.config.services import Place, Proxy, Services, parse_forward, parse_place
from wgpy.daemon.files import read_text
from wgpy.errors import ConfigError, HandshakeTimeout, NamespaceError, NetworkError, TunnelClosedError, WgpyError
from wgpy.system.loop import run_loop

if TYPE_CHECKING:
    from wgpy.config.values import InterfaceConfig
    from wgpy.net.admission import Admission
    from wgpy.net.streams import Server
    from wgpy.rootless.tunnel import RootlessTunnel

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_CHUNK: Final = 1 << 16
_NETWORKS: Final = {"namespace": "the kernel's, in a namespace", "stack": "wgpy's own TCP/IP stack"}
_INSTEAD_OF_EXEC: Final = "`wgpy proxy`, `forward` and `stdio` need none"


def add(verbs: Any) -> None:
    """Add the commands to the command line."""
    needs = (
        "No privileges are needed: the tunnel has a network namespace of its own, or wgpy's own TCP/IP stack if no "
        "namespace can be made. wgpy doctor says which, and why."
    )
    needs_namespace = (
        "No privileges are needed: the program has its own network namespace. wgpy doctor says whether that works."
    )
    run = verbs.add_parser(
        "exec",
        help="run a program that can use no network but the tunnel",
        description="Run a program with the tunnel as its network and the configuration's DNS servers. "
        f"{needs_namespace}",
        epilog="Example: wgpy exec wg0.conf curl -sI http://10.0.0.2/. The exit status is the program's.",
    )
    run.set_defaults(call=_exec)
    proxy = verbs.add_parser(
        "proxy",
        help="run a SOCKS5 or HTTP proxy into a tunnel",
        description="Run a proxy on this host, through which other programs use the tunnel; its DNS servers resolve "
        f"the names they ask for. Proxies and forwards in wireproxy's sections of the file are run as well. {needs}",
        epilog="Example: wgpy proxy wg0.conf --socks 127.0.0.1:1080; curl --socks5-hostname 127.0.0.1:1080 URL",
    )
    proxy.set_defaults(call=_proxy)
    forward = verbs.add_parser(
        "forward",
        help="forward ports into a tunnel and out of it, like ssh -L and -R",
        description=f"Forward TCP and UDP between this host and the tunnel. {needs}",
        epilog="Example: wgpy forward wg0.conf -L 8080:10.0.0.5:80 -L 5353:10.0.0.1:53/udp -R 8000:localhost:80",
    )
    forward.set_defaults(call=_forward)
    stdio = verbs.add_parser(
        "stdio",
        help="connect standard input and output to a host through a tunnel",
        description=f"Connect to HOST:PORT through the tunnel, and copy bytes from and to standard streams. {needs}",
        epilog="Example: ssh -o ProxyCommand='wgpy stdio wg0.conf %h:%p' server.internal",
    )
    stdio.set_defaults(call=_stdio)
    for verb in (run, proxy, forward, stdio):
        verb.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
        verb.add_argument("--wait", type=_seconds, metavar="SECONDS", help="fail if no peer has answered by then")
        verb.add_argument("-v", "--verbose", action="store_true", help="log handshakes and connections that fail")
        verb.add_argument(
            "--network",
            choices=("auto", "namespace", "stack"),
            default="auto",
            help="use the kernel's TCP/IP in a namespace, or wgpy's own stack; auto takes the first that works",
        )
        add_switches(verb)
    run.add_argument("command", nargs="+", metavar="COMMAND", help="the program and its arguments")
    proxy.add_argument(
        "--socks", metavar="[HOST:]PORT", help="run a SOCKS5 proxy on this address (default host: 127.0.0.1)"
    )
    proxy.add_argument("--http", metavar="[HOST:]PORT", help="run an HTTP proxy on this address")
    proxy.add_argument("--auth", metavar="FILE", help="a file with NAME:PASSWORD, which clients must then give")
    for name, what in (("-L", "from this host into the tunnel"), ("-R", "from the tunnel to this host's network")):
        forward.add_argument(
            name, metavar="[HOST:]PORT:HOST:PORT[/udp]", action="append", default=[], dest=name[1], help=what
        )
    stdio.add_argument(
        "target", nargs="?", metavar="HOST:PORT", help="where to connect (default: Target of [STDIOTunnel] in the file)"
    )


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, not {text!r}")


def _exec(arguments: argparse.Namespace) -> int:
    config, _ = _load(arguments.config)
    if arguments.network == "stack":
        raise ConfigError(f"a program needs a network namespace: {_INSTEAD_OF_EXEC}")
    arguments.network = "namespace"

    async def main() -> int:
        async with _connected(config, arguments) as tunnel:
            process = await tunnel.create_subprocess_exec(*arguments.command)
            loop = asyncio.get_running_loop()
            for number in _PASSED_ON:
                loop.add_signal_handler(number, _pass_on, process, number)
            waiting = asyncio.create_task(process.wait())
            lost = asyncio.create_task(tunnel.wait_closed())
            await asyncio.wait((waiting, lost), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                process.kill()
                await waiting
                await lost
            lost.cancel()
            status = waiting.result()
            return 128 - status if status < 0 else status

    return _run(main, arguments)


def _pass_on(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to the program, unless the terminal has sent it one already, because it is in the foreground."""
    from_terminal = number in (signal.SIGINT, signal.SIGQUIT)
    if from_terminal and sys.stdin.isatty() and os.tcgetpgrp(0) == os.getpgrp():
        return
    with suppress(ProcessLookupError):
        process.send_signal(number)


def _proxy(arguments: argparse.Namespace) -> int:
    config, services = _load(arguments.config)
    user, password = _credentials(arguments.auth)
    asked = [("socks5", arguments.socks), ("http", arguments.http)]
    own = [Proxy(kind, parse_place(at, host="127.0.0.1"), user, password) for kind, at in asked if at]  # type: ignore[arg-type]
    services = replace(services, proxies=(*own, *services.proxies))
    if not services.proxies and not services.forwards:
        raise ConfigError("nothing to run: give --socks 127.0.0.1:1080 or --http 127.0.0.1:3128")
    return _run(lambda: _serve(config, services, arguments), arguments)


def _forward(arguments: argparse.Namespace) -> int:
    config, services = _load(arguments.config)
    own = [parse_forward(text) for text in arguments.L] + [parse_forward(text, reverse=True) for text in arguments.R]
    services = Services(forwards=(*own, *services.forwards))
    if not services.forwards:
        raise ConfigError("nothing to forward: give -L 8080:10.0.0.5:80 or -R 8000:localhost:80")
    return _run(lambda: _serve(config, services, arguments), arguments)


async def _serve(config: InterfaceConfig, services: Services, arguments: argparse.Namespace) -> int:
    from wgpy.net.admission import ULIMIT, Admission, descriptors
    from wgpy.relay.forward import forward_datagrams, forward_streams
    from wgpy.relay.networks import HostNetwork

    admission = Admission(descriptors(), ULIMIT)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _connected(config, arguments) as tunnel:
        _say(f"network: {_NETWORKS[tunnel.network]}")
        for proxy in services.proxies:
            with _listening(proxy.listen):
                server = await _serve_proxy(proxy, tunnel, admission)
            _say(f"{proxy.kind} on {_bound(server)}")
        for forward in services.forwards:
            networks = (tunnel, HostNetwork()) if forward.reverse else (HostNetwork(), tunnel)
            start = forward_datagrams if forward.protocol == "udp" else forward_streams
            with _listening(forward.listen):
                listener: Any = await start(networks[0], forward.listen, networks[1], forward.target, admission)
            _say(str(replace(forward, listen=_bound(listener))))
        _say("ready")
        stopping = asyncio.create_task(stop.wait())
        closed = asyncio.create_task(tunnel.wait_closed())
        await asyncio.wait((stopping, closed), return_when=asyncio.FIRST_COMPLETED)
        if closed.done():
            await closed
            raise TunnelClosedError("the tunnel was closed")
        closed.cancel()
    return 0


async def _serve_proxy(proxy: Proxy, tunnel: RootlessTunnel, admission: Admission) -> Server:
    if proxy.kind == "http":
        from wgpy.relay.http import serve_http

        return await serve_http(proxy, tunnel, admission)
    from wgpy.relay.socks import serve_socks

    return await serve_socks(proxy, tunnel, admission)


def _stdio(arguments: argparse.Namespace) -> int:
    config, services = _load(arguments.config)
    target = parse_place(arguments.target) if arguments.target else services.stdio
    if target is None or not target.host:
        raise ConfigError("no address to connect to: give HOST:PORT, or Target in [STDIOTunnel] of the file")

    async def main() -> int:
        async with _connected(config, arguments) as tunnel:
            from wgpy.net.streams import KEEPALIVE
            from wgpy.relay.networks import failure

            try:
                sock = await tunnel.connected_socket(*target)
                with suppress(OSError):  # one end of a socketpair, whose connection has them already
                    for option in KEEPALIVE:
                        sock.setsockopt(*option)
            except WgpyError:
                raise
            except OSError as error:
                raise NetworkError(failure(target, error)) from error
            sock.setblocking(True)
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()

            def send() -> None:
                with suppress(OSError):
                    while data := os.read(0, _CHUNK):
                        sock.sendall(data)
                    sock.shutdown(1)

            def receive() -> None:
                with suppress(OSError):
                    while data := sock.recv(_CHUNK):
                        while data:
                            data = data[os.write(1, data) :]
                loop.call_soon_threadsafe(ended.set)

            # Threads: asyncio would make the standard streams non-blocking, also for other processes that share them.
            for body in (send, receive):
                threading.Thread(target=body, daemon=True).start()
            await ended.wait()
            sock.close()
            return 0

    return _run(main, arguments)


@asynccontextmanager
async def _connected(config: InterfaceConfig, arguments: argparse.Namespace) -> AsyncIterator[RootlessTunnel]:
    from wgpy.rootless.connect import SETUP_TIMEOUT, connect

    wait: float | None = arguments.wait
    timeout = SETUP_TIMEOUT if wait is None else wait
    connecting = connect(config, network=arguments.network, offloads=permitted(arguments), timeout=timeout)
    async with AsyncExitStack() as stack:
        try:
            tunnel = await stack.enter_async_context(connecting)
        except NamespaceError as error:
            if arguments.call is not _exec:
                raise
            raise NamespaceError(f"{error}; {_INSTEAD_OF_EXEC}") from error
        if wait is not None:
            await _answered(tunnel, config, wait)
        yield tunnel


async def _answered(tunnel: RootlessTunnel, config: InterfaceConfig, seconds: float) -> None:
    """Wait until any peer has answered. Raises HandshakeTimeout."""
    waiting = [asyncio.create_task(tunnel.wait_for_handshake(peer.public_key, seconds)) for peer in config.peers]
    failure = HandshakeTimeout("the configuration has no peer to wait for")
    try:
        for each in asyncio.as_completed(waiting):
            try:
                return await each
            except HandshakeTimeout as error:
                failure = error
        raise failure
    finally:
        for task in waiting:
            task.cancel()


def _run(main: Callable[[], Coroutine[Any, Any, int]], arguments: argparse.Namespace) -> int:
    import logging

    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="wgpy: %(message)s")
    return run_loop(main)


def _load(config: str) -> tuple[InterfaceConfig, Services]:
    """Read a file, which may have any name: the tunnel's configuration (hooks are ignored), and what to run."""
    path = Path(config) if "/" in config or config.endswith(".conf") else locate(config)[1]
    source = read_source(path)
    for exposed in source.exposed:
        print(f"Warning: {exposed}", file=sys.stderr)
    file = wgquick.parse(source.text, str(source.path))
    for problem in file.warnings:
        print(f"{problem} (warning)", file=sys.stderr)
    if file.config.private_key is None:
        raise ConfigError(f"{source.path}: [Interface] has no PrivateKey: `wgpy genkey` makes one")
    return file.config, source.services


def _credentials(path: str | None) -> tuple[str, str]:
    if path is None:
        return "", ""
    user, colon, password = read_text(Path(path)).strip().partition(":")
    if not colon or not user or "\n" in password:
        raise ConfigError(f"{path}: expected one line, NAME:PASSWORD")
    return user, password


@contextmanager
def _listening(place: Place) -> Iterator[None]:
    """Turn errors into one that names the address we cannot listen on."""
    try:
        yield
    except WgpyError:
        raise
    except OSError as error:
        from wgpy.net.streams import listening_reason

        raise NetworkError(f"cannot listen on {place}: {listening_reason(error)}") from error


def _bound(listener: Any) -> Place:
    """The address that a server or a datagram transport is bound to."""
    sock = listener.sockets[0] if hasattr(listener, "sockets") else listener.get_extra_info("socket")
    return Place(*sock.getsockname()[:2])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
