"""Creates the runs of Prefect's deployment `warmup`: a schedule and a first run for each sender that warms up."""

from __future__ import annotations

from typing import Final

from postroad.local.prefect_api import PrefectApi
from postroad.settings import Settings, WarmupSettings

DEPLOYMENT: Final = "warmup/warmup"
MINUTE: Final = 20
"""Minute after 04:00. Changes of daylight saving time, which end at 03:00, do not move it."""


def warming_senders(settings: Settings) -> dict[str, WarmupSettings]:
    """Return the warmup settings of each sender that has them, by the sender's name."""
    return {name: sender.warmup for name, sender in settings.senders.items() if sender.warmup is not None}


async def schedule_warmups(settings: Settings, prefect: PrefectApi, minute: int = MINUTE) -> dict[str, bool]:
    """Give each sender that warms up a daily schedule at 04:`minute` in its zone, unless it has one.

    Args:
        settings: With the senders.
        prefect: The server of the deployment.
        minute: Of the hour after 04:00.

    Returns:
        For each sender whether its schedule is new.

    Raises:
        StateError: The deployment is not installed.
        UnavailableError: No server answers.
    """
    return {
        name: await prefect.add_schedule(
            DEPLOYMENT, f"{minute} 4 * * *", warmup.zone or settings.time_zone, {"params": {"sender": name}}
        )
        for name, warmup in warming_senders(settings).items()
    }


async def start_warmups(settings: Settings, prefect: PrefectApi) -> None:
    """Give each sender that warms up its schedule, and start its first run, which sets its caps and publishes them.

    Idempotent: a second call starts no run.

    Raises:
        StateError: The deployment is not installed.
        UnavailableError: No server answers.
    """
    for name in await schedule_warmups(settings, prefect):
        await prefect.run_deployment(
            DEPLOYMENT, {"params": {"sender": name}}, idempotency_key=f"postroad: first warmup of {name}"
        )
