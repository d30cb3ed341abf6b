"""A name server whose responses a test builds from bytes, valid or forged."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import dns.name
import dns.rdatatype

from postroad.dns.transport import Server

Say = Callable[[bytes], Sequence[bytes]]
"""Maps a query to the datagrams to send back, in order."""


def question(name: str, kind: str) -> bytes:
    """Return the question section for a name."""
    octets = dns.name.from_text(name).to_wire()
    assert octets is not None
    return octets + struct.pack("!HH", dns.rdatatype.from_text(kind), 1)


def question_of(query: bytes) -> bytes:
    """Return the question section of a query of the product. An OPT record of 11 bytes follows it."""
    return query[12:-11]


def rr(kind: str, rdata: bytes, *, owner: bytes = b"\xc0\x0c", ttl_s: int = 60) -> bytes:
    """Return a record. Its owner is the name of the question, by a pointer, if no other is given."""
    return owner + struct.pack("!HHIH", dns.rdatatype.from_text(kind), 1, ttl_s, len(rdata)) + rdata


def response(
    query: bytes,
    *answers: bytes,
    flags: int = 0x8180,
    asked: bytes | None = None,
    counts: tuple[int, int, int, int] | None = None,
) -> bytes:
    """Return a response to a query. ``counts``: of the four sections, if not one question and the answers."""
    head = query[:2] + struct.pack("!5H", flags, *(counts or (1, len(answers), 0, 0)))
    return head + (question_of(query) if asked is None else asked) + b"".join(answers)


class Speaker(asyncio.DatagramProtocol):
    """A UDP server that answers each query with a test's datagrams."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.clients: list[tuple[str, int]] = []
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        self.clients.append((str(addr[0]), addr[1]))
        for octets in self._say(data):
            self.transport.sendto(octets, addr)


@asynccontextmanager
async def speaking(say: Say) -> AsyncIterator[tuple[Server, Speaker]]:
    """Listen on loopback."""
    loop = asyncio.get_running_loop()
    transport, speaker = await loop.create_datagram_endpoint(lambda: Speaker(say), local_addr=("127.0.0.1", 0))
    try:
        yield Server("127.0.0.1", transport.get_extra_info("sockname")[1]), speaker
    finally:
        transport.close()
        await speaker.closed.wait()
