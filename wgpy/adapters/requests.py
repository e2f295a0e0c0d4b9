"""requests and urllib3 through a tunnel of `wgpy.blocking`: `session.mount("https://", TunnelAdapter(tunnel))`."""

from __future__ import annotations

import socket
from typing import Any

import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from wgpy.blocking import BlockingTunnel


class TunnelAdapter(requests.adapters.HTTPAdapter):
    """A transport adapter for requests: mount it for "http://" and "https://" to send those through the tunnel."""

    def __init__(self, tunnel: BlockingTunnel, **options: Any) -> None:
        self._tunnel = tunnel
        super().__init__(**options)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pool manager, as requests asks, with connections through the tunnel."""
        super().init_poolmanager(*arguments, **options)
        through_tunnel(self.poolmanager, self._tunnel)


def through_tunnel(manager: urllib3.PoolManager, tunnel: BlockingTunnel) -> urllib3.PoolManager:
    """Make a pool manager connect through the tunnel, whose DNS resolves host names. Returns the manager."""

    class Http(_Connection, HTTPConnection):
        pass

    class Https(_Connection, HTTPSConnection):
        pass

    class HttpPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Https

    Http.wgpy_tunnel = Https.wgpy_tunnel = tunnel
    manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
    return manager


class _Connection:
    wgpy_tunnel: BlockingTunnel
    host: str
    port: int
    timeout: Any

    def _new_conn(self) -> socket.socket:  # urllib3 documents this method for overriding
        timeout = self.timeout if isinstance(self.timeout, int | float) else None
        try:
            return self.wgpy_tunnel.create_connection((self.host, self.port), timeout)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self.host} did not answer within {timeout:g} s") from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error  # type: ignore[arg-type]
