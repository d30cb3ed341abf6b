"""postroad processes: which processes work with the queues, and which of them are alive."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from postroad.app.context import AppContext
from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_table
from postroad.delivery.job import MAIL_QUEUES
from postroad.queue import Process
from postroad.settings.queues import WEBHOOK_QUEUE


def processes(as_json: JsonOption = False) -> None:
    """List the processes of all hosts: workers, recorders, inbound, bounce watch, web.

    Each beats every 4 s. One that has not beaten for 20 s is gone: it was killed, it is stopped, or it does not reach
    the queue's server. It is shown for an hour. A process that ends as it was asked to is not shown.
    """

    async def work(context: AppContext) -> list[Process]:
        found = [await (await context.queue(name)).processes() for name in (*MAIL_QUEUES, BOUNCE_QUEUE, WEBHOOK_QUEUE)]
        return sorted((process for of in found for process in of), key=lambda process: (process.role, process.queue))

    found = with_context(work)
    if as_json:
        print_json([{**msgspec.to_builtins(process), "alive": process.alive} for process in found])
        return
    print_table(
        "processes",
        ["role", "queue", "name", "host", "pid", "version", "started", "last beat", "state"],
        [
            [
                process.role,
                process.queue,
                process.name,
                process.host,
                str(process.pid),
                process.version,
                datetime.fromtimestamp(process.started_ms / 1000, UTC),
                f"{process.beat_age_ms / 1000:.0f} s ago",
                "alive" if process.alive else "gone",
            ]
            for process in found
        ],
    )
