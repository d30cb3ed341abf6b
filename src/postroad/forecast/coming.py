"""Reads the file that the launch of a campaign would import first."""

from __future__ import annotations

from collections.abc import Callable

from postroad.app.context import AppContext
from postroad.campaign.audience_file import audience_file
from postroad.campaign.file_trial import FileTrial, try_file
from postroad.campaign.segment import Segment
from postroad.store.campaign import find_campaign
from postroad.store.engine import read
from postroad.store.recipient import audience_name


def coming_recipients(
    context: AppContext, name: str, progress: Callable[[int, int], None] | None = None
) -> FileTrial | None:
    """Return the recipients whom the launch of a campaign would import first; None if it would import no file.

    Args:
        context: The open parts.
        name: Name of the campaign.
        progress: Called with the number of bytes read and of all bytes.

    Returns:
        The trial of the file.

    Raises:
        StateError: There is no such campaign.
        DataError: The file cannot be read.
    """
    file = audience_file(context.engine, name)
    if file is None or not file.to_import:
        return None
    with read(context.engine) as connection:
        campaign = find_campaign(connection, name)
        audience = audience_name(connection, campaign.audience_id)
    return try_file(
        context.engine,
        Segment.of(campaign, context.clock.now()),
        file.path,
        (),
        types=context.settings.field_types(audience),
        budget_s=0.0,
        progress=progress,
    )
