"""The runs of Prefect's deployment `warmup`: a schedule for each sender that warms up, and its first run."""

from __future__ import annotations

from typing import Final

from postroad.local.prefect import PrefectApi
from postroad.settings import Settings, WarmupSettings

DEPLOYMENT: Final = "warmup/warmup"
MINUTE: Final = 20
"""Of the hour from 04:00 on: after 03:00, so that no change of daylight saving time moves it."""


def warming_senders(settings: Settings) -> dict[str, WarmupSettings]:
    """Return the warmup of each sender that has one, by its name."""
    return {name: sender.warmup for name, sender in settings.senders.items() if sender.warmup is not None}


async def schedule_warmups(settings: Settings, prefect: PrefectApi, minute: int = MINUTE) -> dict[str, bool]:
    """Give each sender that warms up a daily schedule at 04:`minute` in its zone. One that has a schedule keeps it.

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
    """Give each sender that warms up its schedule, and its first run now, so that its caps hold and can be seen.

    Idempotent: a second call starts no run.

    Raises:
        StateError: The deployment is not installed.
        UnavailableError: No server answers.
    """
    for name in await schedule_warmups(settings, prefect):
        await prefect.run_deployment(
            DEPLOYMENT, {"params": {"sender": name}}, idempotency_key=f"postroad: first warmup of {name}"
        )
