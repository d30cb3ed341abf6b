"""The Prefect server of the local stack: Prefect's own application with two changes for SQLite under load.

*Transactions begin with BEGIN IMMEDIATE.* Prefect begins most with BEGIN DEFERRED. If another connection commits before
such a transaction writes, SQLite refuses the write at once, and the server replies 503. With BEGIN IMMEDIATE it waits.

*A thread of its own collects garbage, not the event loop.* To finalise a cursor that is part of a cycle, the collector
waits for the mutex of the cursor's connection. Another thread may hold that mutex while it waits for the writer, up to
Prefect's `busy_timeout` of 60 s. The writer commits only when the event loop runs. A collection in the event loop would
therefore stop the server for a minute.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from prefect.server.api import server as prefect_server
from prefect.server.database import dependencies
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from postroad.local.prefect_access import LOOPBACK

YOUNG_EVERY_S: Final = 0.5
OLD_EVERY: Final = 60
"""Every 60th collection includes the old objects."""
YOUNG: Final = 1
OLD: Final = 2


class ImmediateSqlite(AioSqliteConfiguration):
    """Prefect's SQLite, in which every transaction begins with BEGIN IMMEDIATE."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = True
    ) -> AsyncGenerator[AsyncSessionTransaction]:
        """Begin a transaction once no other transaction writes."""
        del with_for_update
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def create_app() -> ASGIApp:
    """Return Prefect's application, for `uvicorn --factory`. Its database is the SQLite file of the settings.

    A request from a page of another site whose name resolves to this machine (DNS rebinding) is refused by its Host
    header. The check is outside of Prefect's application, because its own services call that with another host name.

    Returns:
        The application.
    """
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    dependencies.MODELS_DEPENDENCIES["database_config"] = ImmediateSqlite(url)
    app = prefect_server.create_app()
    collect_in_a_thread()
    return TrustedHostMiddleware(app, allowed_hosts=LOOPBACK, www_redirect=False)


def collect_in_a_thread() -> None:
    """Collect garbage in a thread that does nothing else, and never the objects that exist now."""
    gc.disable()
    gc.freeze()
    threading.Thread(target=_collect, name="garbage collector", daemon=True).start()


def _collect() -> None:
    pause = threading.Event()
    while True:
        for collection in range(OLD_EVERY):
            pause.wait(YOUNG_EVERY_S)
            gc.collect(OLD if collection == 0 else YOUNG)
