"""Sends one query to one name server: over UDP, and over TCP if the response is truncated.

RFC 5452 says what makes a response hard to forge. Each query has a socket of its own on a port that the kernel picks
at random. The socket is connected, so that the kernel drops datagrams from any other address or port. dnspython picks
a random query id, and ignores a datagram that is malformed or that has another id or another question.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import dns.asyncbackend
import dns.asyncquery
import dns.flags
import dns.inet
import dns.message
import dns.name

from postroad.dns.record import Kind

MAX_UDP_BYTES = 1_232
"""EDNS payload size (RFC 6891) that avoids fragmentation. A longer response is sent over TCP (RFC 7766)."""
_FLAGS = dns.flags.RD | dns.flags.AD  # RFC 6840 §5.7: AD in a query asks for AD in the response.


@dataclass(frozen=True, slots=True)
class Server:
    """A name server: its address, with a zone if it needs one, and its port."""

    address: str
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


async def send_query(server: Server, name: dns.name.Name, kind: Kind, timeout_s: float) -> dns.message.Message:
    """Send a query to a name server and return its response.

    Args:
        server: The name server.
        name: An absolute name.
        kind: The record type.
        timeout_s: The time limit for UDP, and again for TCP.

    Returns:
        A response that belongs to the query and is not truncated.

    Raises:
        TimeoutError: No such response arrived in time.
        OSError: The network or the server's host rejected the query.
        EOFError: The response over TCP is truncated, or the server closed the connection before its end.
        dns.exception.DNSException: The response over TCP is malformed, or of another query.
    """
    query = dns.message.make_query(name, kind, use_edns=0, payload=MAX_UDP_BYTES, flags=_FLAGS)
    async with asyncio.timeout(timeout_s):
        try:
            return await _over_udp(server, query)
        except dns.message.Truncated:
            pass
    async with asyncio.timeout(timeout_s):
        response = await dns.asyncquery.tcp(query, server.address, port=server.port)
    if response.flags & dns.flags.TC:
        raise EOFError("sent a truncated response over TCP")
    return response


async def _over_udp(server: Server, query: dns.message.Message) -> dns.message.Message:
    """Send a query over UDP. Raises OSError, or dns.message.Truncated for a truncated response to this query."""
    # Without a peer in the calls, dnspython leaves the comparison of addresses, which have several spellings, to the
    # kernel.
    async with _ConnectedSocket(server) as connected:
        await dns.asyncquery.send_udp(connected, query, None)
        response, _, _ = await dns.asyncquery.receive_udp(
            connected, query=query, ignore_errors=True, raise_on_truncation=True
        )
    assert isinstance(response, dns.message.Message)  # noqa: S101  (dnspython declares any type)
    return response


class _ConnectedSocket(dns.asyncbackend.DatagramSocket):  # type: ignore[name-defined,misc]
    """A UDP socket that is connected to a name server, so that it also reports that the server's port is closed.

    The kernel's socket is closed at once. That of dnspython's own backend is closed in a later turn of the event loop,
    which a loop that ends does not have.
    """

    def __init__(self, server: Server) -> None:
        family = dns.inet.af_for_address(server.address)
        super().__init__(family, socket.SOCK_DGRAM)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect((server.address, server.port))
        except BaseException:
            self._socket.close()
            raise

    async def sendto(self, what: bytes, destination: object, timeout: float | None) -> int:
        await asyncio.get_running_loop().sock_sendall(self._socket, what)
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, None]:
        return await asyncio.get_running_loop().sock_recv(self._socket, size), None

    async def close(self) -> None:
        self._socket.close()
