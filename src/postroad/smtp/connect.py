"""A TCP connection from one address of this machine to the first address of a host that takes it."""

from __future__ import annotations

import asyncio
import socket

from postroad.smtp.endpoint import Endpoint

MAX_ADDRESSES = 6


async def connect(endpoint: Endpoint, seconds: float) -> socket.socket:
    """Try the host's addresses in turn, all within so many seconds. Raises OSError (TimeoutError is one)."""
    async with asyncio.timeout(seconds):
        failures: list[OSError] = []
        places = await _places(endpoint)
        for place in places[:MAX_ADDRESSES]:
            family, address = place
            try:
                # One host that swallows what is sent to it must not use up the time of the others.
                async with asyncio.timeout(seconds / min(len(places), 3)):
                    return await _connect_to(family, address, endpoint.origin.source_address)
            except OSError as error:
                failures.append(error)
    if not failures:
        raise OSError(f"{endpoint.host} has no address that can be reached from {endpoint.origin.source_address}")
    raise failures[0] if str(failures[0]) else TimeoutError(f"{endpoint.name} takes no connection")


async def _places(endpoint: Endpoint) -> list[tuple[int, tuple[str, int]]]:
    """Family and address of each place where the host is, those only that the source address can reach."""
    if endpoint.addresses:
        found = [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, (address, endpoint.port))
            for address in endpoint.addresses
        ]
    else:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        found = [(info[0], (str(info[4][0]), endpoint.port)) for info in infos]
    source = endpoint.origin.source_address
    if source is None:
        return [(int(family), address) for family, address in found]
    own = socket.AF_INET6 if ":" in source else socket.AF_INET
    return [(int(family), address) for family, address in found if family == own]


async def _connect_to(family: int, address: tuple[str, int], source: str | None) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        # A peer that vanished while the session idled is noticed before a message has waited minutes for its reply.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if source is not None:
            made.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
