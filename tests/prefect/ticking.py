"""A flow for a worker to run: where it runs, it finds only what its environment gives it."""

from __future__ import annotations

from prefect import flow


@flow(name="ticking")
async def tick() -> None:
    """Do nothing, on time."""
