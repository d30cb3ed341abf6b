"""Runs uvicorn within a process that has other tasks."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from postroad.errors import ConfigError
from postroad.web.connections import WebConnectionLimiter

MAX_HEAD_BYTES = 16_384
IDLE_S = 5
STOP_WITHIN_S = 10


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # The command handles signals itself.


@asynccontextmanager
async def serving(
    app: ASGIApp, host: str, port: int, limiter: WebConnectionLimiter, *, section: str = "web"
) -> AsyncIterator[int]:
    """Run the server while the block runs. Raises ConfigError.

    Args:
        app: The application.
        host: Address to bind.
        port: Port to bind. 0: any free port.
        limiter: Limits the connections.
        section: Section of the settings with host and port, for errors.

    Yields:
        The port.
    """
    listener = bind_listener(host, port, section)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="off",
        http=limiter.protocol,  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    # The access log would contain tokens. It must stay off even if a handler is added to it.
    logging.getLogger("uvicorn.access").disabled = True
    server = _Server(config)
    serving_task = asyncio.create_task(server.serve(sockets=[listener]))
    watching = asyncio.create_task(limiter.watch())
    try:
        yield int(listener.getsockname()[1])  # The socket is listening: early connections wait for the server.
    finally:
        server.should_exit = True
        await serving_task
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def bind_listener(host: str, port: int, section: str = "web") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
        # Accepted sockets inherit the option. asyncio sets it only on sockets with a protocol number, unlike this one.
        # Without it, each response, which is two writes, would wait 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ConfigError(
            f"cannot listen there: {error.strerror}",
            where=f"{host}:{port}",
            remedy="Is it running already? Name another with --host and --port, "
            f"or with {section}.host and {section}.port.",
        ) from None
