"""A resolver that answers from zones in Python dicts, over UDP and TCP on loopback, with the faults of resolvers."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Collection, Mapping
from enum import Enum, auto
from types import TracebackType
from typing import Self, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from postroad.settings import DnsSettings

Zone = Mapping[str, Mapping[str, list[str]]]
"""By name without its final dot, then by type: records in the form of a zone file."""


class Trouble(Enum):
    """A fault for every query about a name."""

    SERVFAIL = auto()
    REFUSED = auto()
    SILENT = auto()
    GARBAGE = auto()
    TRUNCATED = auto()  # by UDP; whole by TCP


class Nameserver:
    """Answers as a recursive resolver does: follows CNAMEs, and sets the AD bit for signed names."""

    def __init__(
        self,
        zone: Zone,
        *,
        troubles: Mapping[str, Trouble] | None = None,
        signed: Collection[str] = (),
        ttl_s: int = 300,
    ) -> None:
        self.zone = {name.lower(): dict(kinds) for name, kinds in zone.items()}
        self.troubles = dict(troubles or {})
        self.signed = set(signed)
        self.ttl_s = ttl_s
        self.asked: Counter[tuple[str, str]] = Counter()
        self.by_tcp = 0
        self.at_once = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        while True:
            self._tcp = await asyncio.start_server(self._stream, "127.0.0.1", 0)
            self.port: int = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
                )
            except OSError:  # the UDP port is in use: try another
                self._tcp.close()
                await self._tcp.wait_closed()
            else:
                return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def settings(self, *, trust_ad: bool = False, timeout_ms: int = 2_000, concurrency: int = 100) -> DnsSettings:
        return DnsSettings(
            nameservers=(f"127.0.0.1:{self.port}",), trust_ad=trust_ad, timeout_ms=timeout_ms, concurrency=concurrency
        )

    def answer(self, octets: bytes, *, by_tcp: bool) -> bytes | None:
        request = dns.message.from_wire(octets)
        question = request.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        self.by_tcp += by_tcp
        response = dns.message.make_response(request, recursion_available=True)
        match self.troubles.get(name):
            case Trouble.SILENT:
                return None
            case Trouble.GARBAGE:
                return b"\x00garbage"
            case Trouble.SERVFAIL:
                response.set_rcode(dns.rcode.SERVFAIL)
            case Trouble.REFUSED:
                response.set_rcode(dns.rcode.REFUSED)
            case Trouble.TRUNCATED if not by_tcp:
                response.flags |= dns.flags.TC
            case _:
                self._fill(response, name, kind)
        return response.to_wire(max_size=65_535)

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        secure = True
        for _ in range(20):  # and then it leaves a loop of CNAMEs as it is
            kinds = self.zone.get(name)
            secure = secure and name in self.signed
            if kinds is not None and kind in kinds:
                response.answer.append(dns.rrset.from_text_list(f"{name}.", self.ttl_s, "IN", kind, kinds[kind]))
                break
            if kinds is None or "CNAME" not in kinds:
                if kinds is None and not any(known.endswith(f".{name}") for known in self.zone):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                break
            response.answer.append(dns.rrset.from_text_list(f"{name}.", self.ttl_s, "IN", "CNAME", kinds["CNAME"]))
            name = kinds["CNAME"][0].rstrip(".").lower()
        if secure:
            response.flags |= dns.flags.AD

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            answer = self.answer(await reader.readexactly(size), by_tcp=True)
            if answer is not None:
                writer.write(struct.pack("!H", len(answer)) + answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Nameserver) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str | object, int]) -> None:
        answer = self._server.answer(data, by_tcp=False)
        if answer is not None:
            self._transport.sendto(answer, address)
