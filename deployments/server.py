"""The Prefect server of a local house: Prefect's own application, made to get along with SQLite under load.

*Writers wait their turn.* Prefect begins a transaction as a reader's; when it comes to write and another has written
meanwhile, SQLite refuses at once, and the client is answered with 503. Begun as a writer's, it waits for the others.

*Garbage is collected beside the event loop.* A cursor that ended in a cycle is finalised by the collector, which waits
for the mutex of the cursor's connection; a thread of that connection may hold it while it waits for the writer, for as
long as `busy_timeout` (60 s, set by Prefect); and the writer commits when the event loop tells it to. Were it the event
loop that collects, the server would stand still for a minute.
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
"""Every how many collections the old objects are looked through too."""
YOUNG: Final = 1
OLD: Final = 2


class PatientSqlite(AioSqliteConfiguration):
    """Prefect's SQLite, whose transactions all begin as writers (BEGIN IMMEDIATE)."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = True
    ) -> AsyncGenerator[AsyncSessionTransaction]:
        """Begin a transaction, when the one writer that there may be has ended."""
        del with_for_update
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def create_app() -> ASGIApp:
    """Return Prefect's application, for `uvicorn --factory`. Its database is the SQLite file of the settings.

    A page of another site whose name is made to resolve to this machine (DNS rebinding) is refused by its Host header.
    The check encloses the application, because Prefect's own services call it in memory by another host name.
    """
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    dependencies.MODELS_DEPENDENCIES["database_config"] = PatientSqlite(url)
    app = prefect_server.create_app()
    collect_in_a_thread()
    return TrustedHostMiddleware(app, allowed_hosts=LOOPBACK, www_redirect=False)


def collect_in_a_thread() -> None:
    """Let no thread of this process collect garbage but one that does nothing else. What is there by now stays."""
    gc.disable()
    gc.freeze()
    threading.Thread(target=_collect, name="garbage collector", daemon=True).start()


def _collect() -> None:
    pause = threading.Event()
    while True:
        for collection in range(OLD_EVERY):
            pause.wait(YOUNG_EVERY_S)
            gc.collect(OLD if collection == 0 else YOUNG)
