"""A query through a tunnel: python database.py wg0.conf postgresql://me@db.internal/app "SELECT 1" (asyncpg; no root).

The password may be in PGPASSWORD.
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

import asyncpg

import wgpy


async def main(config: str, address: str, query: str) -> None:
    server = urlsplit(address)
    async with (
        wgpy.connect(config) as tunnel,
        # asyncpg opens its own connections, so give it a local port that leads to the server.
        wgpy.forwarded(tunnel, server.hostname or "", server.port or 5432) as (host, port),
    ):
        connection = await asyncpg.connect(address, host=host, port=port, timeout=30)
        try:
            for row in await connection.fetch(query):
                print(*row, sep="\t")
        finally:
            await connection.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (wgpy.WgpyError, asyncpg.PostgresError, OSError) as error:
        sys.exit(f"database: {error or type(error).__name__}")
