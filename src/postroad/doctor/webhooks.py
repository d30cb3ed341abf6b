"""Checks the endpoints that get events by webhook: their secrets, and whether they get their events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from postroad.doctor.check import Check, failed
from postroad.doctor.context import DoctorContext
from postroad.errors import PostroadError
from postroad.events_out.signature import load_ring
from postroad.events_out.status import EndpointReport, EndpointStatus, endpoint_reports
from postroad.printable import counted
from postroad.queue import Health

LAG_S = 3_600.0
"""Age of the oldest event that an endpoint has not got, from which the check warns."""


async def check_webhooks(context: DoctorContext) -> Sequence[Check]:
    """Check each endpoint: it has a secret, is enabled, and does not lag. Raises UnavailableError."""
    settings = context.settings.webhooks_out
    engine = await context.database()
    now = (await context.app()).clock.now()
    reports = await asyncio.to_thread(endpoint_reports, engine, settings, now)
    checks = []
    for report in reports:
        if report.status is EndpointStatus.REMOVED:
            continue
        try:
            load_ring(report.name, settings[report.name])
        except PostroadError as error:
            checks.append(failed(f"webhook {report.name}", error))
        else:
            checks.append(check_endpoint(report))
    return checks


def check_endpoint(report: EndpointReport) -> Check:
    """Return the check of one endpoint."""
    part, name = f"webhook {report.name}", report.name
    backlog = f"{counted(report.waiting, 'event')} waiting, {report.dead:,} dead, a lag of {report.lag_s:,.0f} s"
    if report.status is EndpointStatus.DISABLED:
        seen = f"disabled since {report.disabled_at:%Y-%m-%d %H:%M} UTC: {report.disabled_for}"
        remedy = f"When its receiver works again: `postroad webhook enable {name}`. Its events wait until then."
        return Check(part=part, health=Health.FAIL, seen=seen, remedy=remedy)
    if report.status is EndpointStatus.NEW:
        remedy = "Start `postroad recorder` with these settings: it gets the events from then on."
        return Check(part=part, health=Health.WARN, seen="no recorder has seen it yet", remedy=remedy)
    if report.lag_s >= LAG_S:
        last = f"; the last attempt: {report.last_outcome}" if report.last_outcome else ""
        error = f", {report.last_error}" if report.last_error else ""
        remedy = f"`postroad webhook log {name}` shows the attempts, `postroad webhook send-test {name}` tries it now."
        return Check(part=part, health=Health.WARN, seen=f"{backlog}{last}{error}", remedy=remedy)
    if report.dead:
        remedy = "`postroad queue replay --queue webhook:out --all` sends the dead ones again."
        return Check(part=part, health=Health.WARN, seen=backlog, remedy=remedy)
    return Check(part=part, health=Health.OK, seen=backlog)
