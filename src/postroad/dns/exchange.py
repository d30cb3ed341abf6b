"""One question to one name server, and its answer: by UDP, and by TCP for what is too long for that.

What makes an answer hard to forge (RFC 5452): a port that the kernel picks at random, an id that we do, and a socket
that hears only the server. What does not fit all of them, and the question, is passed over as if it had not come.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass

from postroad.dns.wire import Question, Reply, WireError, read_reply

QUESTIONS_OF_A_PORT = 64
"""Then another port is taken, so that none is worth finding out; also when there is nothing left to wait for."""
_MAX_DATAGRAM_BYTES = 65_535


@dataclass(frozen=True, slots=True)
class Server:
    """A name server: address, with its zone if it needs one, and port."""

    address: str
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Exchange:
    """Asks, by few sockets for many questions."""

    def __init__(self) -> None:
        self._ports: dict[Server, _Port] = {}

    async def ask(self, server: Server, question: Question, timeout_s: float) -> Reply:
        """Return what the server says. ``timeout_s``: of each of both ways.

        Raises TimeoutError, OSError for what the network says; EOFError, WireError for an answer by TCP that is none.
        """
        reply = await self._by_udp(server, question, timeout_s)
        if reply.truncated:
            reply = await _by_tcp(server, question, timeout_s)
        return reply

    async def _by_udp(self, server: Server, question: Question, timeout_s: float) -> Reply:
        port = self._ports.get(server)
        if port is None or not port.is_usable:
            port = self._ports[server] = _Port(server)
        return await port.ask(question, timeout_s)


class _Port:
    """A socket of our own, connected to a server. It closes when its last question has ended."""

    def __init__(self, server: Server) -> None:
        """Raises OSError: there is no way to the server."""
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.address, server.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )[0]
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.setblocking(False)
            # Bound by that, to a port of the kernel's choice. What others send is kept off, and refusals are heard.
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._receive)
        self._left = QUESTIONS_OF_A_PORT
        self._waiting: dict[bytes, tuple[Question, asyncio.Future[Reply]]] = {}

    @property
    def is_usable(self) -> bool:
        return self._left > 0 and self._socket.fileno() >= 0

    async def ask(self, question: Question, timeout_s: float) -> Reply:
        """Raises TimeoutError, OSError."""
        self._left -= 1
        id_ = secrets.token_bytes(2)
        while id_ in self._waiting:
            id_ = secrets.token_bytes(2)
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[id_] = question, answer
        timer = self._loop.call_later(timeout_s, _give_up, answer)
        try:
            self._send(question.message(id_))
            return await answer
        finally:
            timer.cancel()
            del self._waiting[id_]
            if not self._waiting:
                self._loop.remove_reader(self._socket)
                self._socket.close()

    def _send(self, octets: bytes) -> None:
        with suppress(BlockingIOError):  # Lost on the first metre: asked again as if it had been on the last.
            self._socket.send(octets)

    def _receive(self) -> None:
        # As many as there are, for coming back costs more than reading them; and no more than may be meant for us, so
        # that nobody can keep us here.
        for _ in range(QUESTIONS_OF_A_PORT):
            try:
                octets = self._socket.recv(_MAX_DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                for _, answer in self._waiting.values():
                    _end(answer, error)
                return
            waiting = self._waiting.get(octets[:2])
            if waiting is not None and not waiting[1].done():
                question, answer = waiting
                with suppress(WireError):
                    answer.set_result(read_reply(octets, question))


def _give_up(answer: asyncio.Future[Reply]) -> None:
    _end(answer, TimeoutError())


def _end(answer: asyncio.Future[Reply], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


async def _by_tcp(server: Server, question: Question, timeout_s: float) -> Reply:
    """RFC 7766. Raises TimeoutError, OSError, EOFError and WireError."""
    id_ = secrets.token_bytes(2)
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(server.address, server.port)
        try:
            octets = question.message(id_)
            writer.write(len(octets).to_bytes(2, "big") + octets)
            size = int.from_bytes(await reader.readexactly(2), "big")
            octets = await reader.readexactly(size)
        finally:
            writer.close()
    if octets[:2] != id_:
        raise WireError("it answers another question")
    reply = read_reply(octets, question)
    if reply.truncated:
        raise WireError("it is cut short although it came by TCP")
    return reply
