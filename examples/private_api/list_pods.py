"""Print the names of the pods, through a tunnel without root: python list_pods.py CONFIG CA TOKEN_FILE."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path

import wgpy

HOST = "api.cluster.internal"


async def main(config: str, authority: str, token: str) -> None:
    async with wgpy.connect(config) as tunnel:
        context = ssl.create_default_context(cafile=authority)
        reader, writer = await tunnel.open_connection(HOST, 6443, ssl=context)
        head = f"GET /api/v1/namespaces/default/pods HTTP/1.0\r\nHost: {HOST}\r\n{token}\r\n\r\n"
        writer.write(head.encode())
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        print(*(item["metadata"]["name"] for item in json.loads(body)["items"]))
        writer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_text().strip()))
