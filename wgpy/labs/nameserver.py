"""A name server for tests and labs: python -m wgpy.labs.nameserver ADDRESS NAME=ADDRESS... Other names do not exist."""

from __future__ import annotations

import asyncio
import sys
from ipaddress import ip_address
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameServer(asyncio.DatagramProtocol):
    def __init__(self, records: dict[str, list[str]]) -> None:
        self._records = records

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        (question,) = query.question
        addresses = self._records.get(str(question.name).rstrip("."))
        if addresses is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            kind = "A" if question.rdtype == dns.rdatatype.A else "AAAA"
            own = [address for address in addresses if (ip_address(address).version == 4) is (kind == "A")]
            if own:
                answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *own))
        self._transport.sendto(answer.to_wire(), sender)


async def main(address: str, words: list[str]) -> None:
    records: dict[str, list[str]] = {}
    for word in words:
        name, _, target = word.partition("=")
        records.setdefault(name, []).append(target)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: NameServer(records), local_addr=(address, 53))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
