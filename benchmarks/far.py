"""A way to a name server that takes time, as the way to every resolver but one's own does. UDP only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

Address = tuple[str | object, int]


class _Asked(NamedTuple):
    """Who asked, and by which id."""

    client: Address
    id: bytes


class _Datagrams(asyncio.DatagramProtocol):
    """One end of the way."""

    transport: asyncio.DatagramTransport

    def __init__(self, receive: Callable[[bytes, Address], None]) -> None:
        self._receive = receive

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._receive(data, addr)

    def send(self, octets: bytes, to: Address) -> None:
        if not self.transport.is_closing():
            self.transport.sendto(octets, to)


class _Way:
    """Queries go to the server at once, with ids of our own; responses are delayed."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._asked: dict[bytes, _Asked] = {}
        self._count = 0
        self.near = _Datagrams(self.ask)
        self.far = _Datagrams(self.answer)

    def ask(self, question: bytes, client: Address) -> None:
        self._count = (self._count + 1) % 65_536
        id_ = self._count.to_bytes(2, "big")
        self._asked[id_] = _Asked(client, question[:2])
        self.far.transport.sendto(id_ + question[2:])

    def answer(self, answer: bytes, _: Address) -> None:
        asked = self._asked.pop(answer[:2], None)
        if asked is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay_s, self.near.send, asked.id + answer[2:], asked.client)


@asynccontextmanager
async def away(port: int, delay_ms: float) -> AsyncIterator[int]:
    """Yield a port that leads to this one of loopback, and takes so much longer for every answer."""
    loop = asyncio.get_running_loop()
    way = _Way(delay_ms / 1000)
    far, _ = await loop.create_datagram_endpoint(lambda: way.far, remote_addr=("127.0.0.1", port))
    near, _ = await loop.create_datagram_endpoint(lambda: way.near, local_addr=("127.0.0.1", 0))
    try:
        yield int(near.get_extra_info("sockname")[1])
    finally:
        near.close()
        far.close()
