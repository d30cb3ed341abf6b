"""The Prefect server of a local house: Prefect's own application, whose garbage is collected beside its event loop.

On SQLite a server that collects wherever it happens to be may stand still for a minute. A cursor that ended in a
cycle is finalised by the collector, which waits for the mutex of the cursor's connection; a thread of that connection
may hold it while it waits for the database's one writer, for as long as `busy_timeout` (60 s, set by Prefect); and the
writer commits when the event loop tells it to. With the collector in a thread of its own only that thread waits.
"""

from __future__ import annotations

import gc
import threading
from typing import Final

from fastapi import FastAPI
from prefect.server.api import server as prefect_server

YOUNG_EVERY_S: Final = 0.5
OLD_EVERY: Final = 60
"""Every how many collections the old objects are looked through too."""
YOUNG: Final = 1
OLD: Final = 2


def create_app() -> FastAPI:
    """Return Prefect's application, for `uvicorn --factory`."""
    app = prefect_server.create_app()
    collect_in_a_thread()
    return app


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
