"""connect(): bring a NamespaceTunnel up, and never keep the loop waiting.

What takes long is done in a thread: to import the tunnel and what it stands on, to read the file, to start the helper.
So this module itself imports next to nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wgpy.errors import ConfigError, NetworkError

if TYPE_CHECKING:
    from wgpy.config.values import InterfaceConfig, Offloads
    from wgpy.device.effects import Event
    from wgpy.namespace.client import HelperProcess
    from wgpy.namespace.tunnel import NamespaceTunnel

SETUP_TIMEOUT: Final = 20.0  # seconds; a resolver that does not answer is asked some times within it
_NAME: Final = "wg0"  # alone in its namespace, as every other is


@asynccontextmanager
async def connect(
    config: str | os.PathLike[str] | InterfaceConfig,
    *,
    on_event: Callable[[Event], None] | None = None,
    offloads: Offloads | None = None,
    timeout: float | None = SETUP_TIMEOUT,  # noqa: ASYNC109
) -> AsyncIterator[NamespaceTunnel]:
    """Bring up a tunnel in a network namespace of its own, and close it at the end of the block.

    ::

        async with wgpy.connect("wg0.conf") as tunnel:
            reader, writer = await tunnel.open_connection("10.0.0.2", 5432)

    `config` is a wg-quick file's path, or `wgpy.config.parse(text).config`. Addresses, MTU and DNS apply inside; every
    packet of the namespace goes to the peer whose allowed IPs hold its destination, or is refused; hooks are not run,
    and neither privileges nor the host's routes are used. Raises ConfigError, NetworkError for an endpoint that does
    not resolve, SocketError for a port in use, and NamespaceError, which says what keeps namespaces from being made.

    `timeout` is the seconds until it is up, mostly for the endpoints' names; a peer need not have answered by then.
    """
    config, process = await _in_thread(config)
    from wgpy.namespace.client import Helper
    from wgpy.namespace.tunnel import NamespaceTunnel

    helper = Helper(process)
    try:
        offloads = config.offloads if offloads is None else config.offloads & offloads
        tun_fd, *namespaces = await helper.ask("open", _NAME, offloads.tun)
        tunnel = NamespaceTunnel(config, helper, tun_fd, namespaces, on_event=on_event, offloads=offloads)
    except BaseException:
        helper.close()
        raise
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout):
                await stack.enter_async_context(tunnel)
        except TimeoutError:
            raise NetworkError(_unresolved(config, timeout)) from None
        yield tunnel


async def _in_thread(config: str | os.PathLike[str] | InterfaceConfig) -> tuple[InterfaceConfig, HelperProcess]:
    preparing = asyncio.ensure_future(asyncio.to_thread(_prepare, config))
    try:
        return await asyncio.shield(preparing)
    except asyncio.CancelledError:
        preparing.add_done_callback(_discard)
        raise


def _prepare(config: str | os.PathLike[str] | InterfaceConfig) -> tuple[InterfaceConfig, HelperProcess]:
    import_module("wgpy.namespace.tunnel")
    from wgpy.config import wgquick
    from wgpy.config.values import expect_config
    from wgpy.daemon.files import read_text
    from wgpy.namespace.client import HelperProcess

    if isinstance(config, str | os.PathLike):
        config = wgquick.parse(read_text(Path(config)), str(config)).config
    expect_config(config)
    if config.private_key is None:
        raise ConfigError("the configuration has no PrivateKey: `wgpy genkey` makes one")
    _ = config.private_key.public_key  # the first loads OpenSSL
    return config, HelperProcess()


def _discard(prepared: asyncio.Future[tuple[InterfaceConfig, HelperProcess]]) -> None:
    """End what nobody waits for any more."""
    if not prepared.cancelled() and prepared.exception() is None:
        _, process = prepared.result()
        prepared.get_loop().run_in_executor(None, process.end)


def _unresolved(config: InterfaceConfig, timeout: float | None) -> str:
    names = [str(peer.endpoint) for peer in config.peers if peer.endpoint and peer.endpoint.is_host_name]
    hint = f"no answer about {', '.join(names)}: check the names and the resolver" if names else "the machine is busy"
    return f"the tunnel is not up after {timeout:g} s: {hint}"
