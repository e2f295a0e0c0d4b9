"""connect(): bring up a tunnel with a network of its own, and never keep the loop waiting.

What takes long is done in a thread: to import the tunnel and what it stands on, to read the file, to start the helper.
So this module itself imports next to nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from wgpy.errors import ConfigError, NamespaceError, NetworkError

if TYPE_CHECKING:
    from wgpy.config.values import InterfaceConfig, Offloads
    from wgpy.device.effects import Event
    from wgpy.namespace.client import HelperProcess
    from wgpy.rootless.tunnel import RootlessTunnel

log: Final = logging.getLogger("wgpy")

SETUP_TIMEOUT: Final = 20.0  # seconds; a resolver that does not answer is asked some times within it
_STACK: Final = "wgpy.userspace.tunnel"
_NAME: Final = "wg0"  # alone in its namespace, as every other is

NetworkChoice = Literal["auto", "namespace", "stack"]


@asynccontextmanager
async def connect(
    config: str | os.PathLike[str] | InterfaceConfig,
    *,
    network: NetworkChoice = "auto",
    on_event: Callable[[Event], None] | None = None,
    offloads: Offloads | None = None,
    timeout: float | None = SETUP_TIMEOUT,  # noqa: ASYNC109
) -> AsyncIterator[RootlessTunnel]:
    """Bring up a tunnel with a network of its own, and close it at the end of the block.

    ::

        async with wgpy.connect("wg0.conf") as tunnel:
            reader, writer = await tunnel.open_connection("10.0.0.2", 5432)

    `config` is a wg-quick file's path, or `wgpy.config.parse(text).config`. Addresses, MTU and DNS apply inside; every
    packet goes to the peer whose allowed IPs hold its destination, or is refused; hooks are not run, and neither
    privileges nor the host's routes are used.

    `network` is "namespace" for the kernel's TCP/IP in a network namespace, which takes unprivileged user namespaces
    and /dev/net/tun; "stack" for wgpy's own in this process, which takes nothing but UDP sockets; or "auto": the first
    that works. `tunnel.network` tells which it is.

    `timeout` is the seconds until it is up, mostly for the endpoints' names; a peer need not have answered by then.

    Raises ConfigError, NetworkError for an endpoint that does not resolve, SocketError for a port in use, and with
    "namespace" NamespaceError, which says what keeps namespaces from being made.
    """
    if network not in ("auto", "namespace", "stack"):
        raise ConfigError(f"network: expected 'auto', 'namespace' or 'stack', not {network!r}")
    config, process = await _in_thread(config, network)
    offloads = config.offloads if offloads is None else config.offloads & offloads
    tunnel: RootlessTunnel | None = None
    if process is not None:
        try:
            tunnel = await _in_namespace(config, process, on_event, offloads)
        except NamespaceError as error:
            if network == "namespace":
                raise
            log.info("no network namespace, so wgpy's own TCP/IP stack: %s", error)
    if tunnel is None:
        if _STACK not in sys.modules:
            await asyncio.to_thread(import_module, _STACK)
        from wgpy.userspace.tunnel import Stack

        tunnel = Stack(config, on_event=on_event, offloads=offloads)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout):
                await stack.enter_async_context(tunnel)
        except TimeoutError:
            raise NetworkError(_unresolved(config, timeout)) from None
        yield tunnel


async def _in_namespace(
    config: InterfaceConfig, process: HelperProcess, on_event: Callable[[Event], None] | None, offloads: Offloads
) -> RootlessTunnel:
    from wgpy.namespace.client import Helper
    from wgpy.namespace.tunnel import NamespaceTunnel

    helper = Helper(process)
    try:
        tun_fd, *namespaces = await helper.ask("open", _NAME, offloads.tun)
        return NamespaceTunnel(config, helper, tun_fd, namespaces, on_event=on_event, offloads=offloads)
    except BaseException:
        helper.close()
        raise


async def _in_thread(
    config: str | os.PathLike[str] | InterfaceConfig, network: NetworkChoice
) -> tuple[InterfaceConfig, HelperProcess | None]:
    preparing = asyncio.ensure_future(asyncio.to_thread(_prepare, config, network))
    try:
        return await asyncio.shield(preparing)
    except asyncio.CancelledError:
        preparing.add_done_callback(_discard)
        raise


def _prepare(
    config: str | os.PathLike[str] | InterfaceConfig, network: NetworkChoice
) -> tuple[InterfaceConfig, HelperProcess | None]:
    """The configuration, and a helper that has been started unless the network is to be, or can only be, a stack."""
    from wgpy.config import wgquick
    from wgpy.config.values import expect_config

    if isinstance(config, str | os.PathLike):
        from wgpy.daemon.files import read_text

        config = wgquick.parse(read_text(Path(config)), str(config)).config
    expect_config(config)
    if config.private_key is None:
        raise ConfigError("the configuration has no PrivateKey: `wgpy genkey` makes one")
    _ = config.private_key.public_key  # the first loads OpenSSL
    if network == "namespace" and sys.platform != "linux":
        raise NamespaceError('network namespaces are Linux\'s: use network="stack"')
    if network == "stack" or sys.platform != "linux":
        import_module(_STACK)
        return config, None
    import_module("wgpy.namespace.tunnel")
    from wgpy.namespace.client import HelperProcess

    try:
        return config, HelperProcess()
    except NamespaceError as error:
        if network == "namespace":
            raise
        log.info("no network namespace, so wgpy's own TCP/IP stack: %s", error)
        return config, None


def _discard(prepared: asyncio.Future[tuple[InterfaceConfig, HelperProcess | None]]) -> None:
    """End what nobody waits for any more."""
    if not prepared.cancelled() and prepared.exception() is None:
        _, process = prepared.result()
        if process is not None:
            prepared.get_loop().run_in_executor(None, process.end)


def _unresolved(config: InterfaceConfig, timeout: float | None) -> str:
    names = [str(peer.endpoint) for peer in config.peers if peer.endpoint and peer.endpoint.is_host_name]
    hint = f"no answer about {', '.join(names)}: check the names and the resolver" if names else "the machine is busy"
    return f"the tunnel is not up after {timeout:g} s: {hint}"
