"""Keeps the list of campaigns in the form of the deployment `campaign` up to date.

The field becomes a choice between a drop-down of the campaigns and a typed name. So a campaign that another host
applied a second ago can be started before the form lists it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import col

from postroad.local.prefect_api import PrefectApi
from postroad.store.campaign import Campaign, CampaignState
from postroad.store.engine import read

DEPLOYMENT: Final = "campaign/campaign"
MODEL: Final = "CampaignParams"
FIELD: Final = "campaign"


def launchable_campaigns(engine: sa.Engine) -> list[str]:
    """Return the names of the campaigns that a person may launch, the newest first.

    A cancelled campaign cannot be launched. A campaign to a seed list is launched by its warmup.
    """
    statement = (
        sa.select(col(Campaign.name))
        .where(col(Campaign.state) != CampaignState.CANCELLED, col(Campaign.warmup).is_(False))
        .order_by(col(Campaign.created_at).desc(), col(Campaign.name))
    )
    with read(engine) as connection:
        return list(connection.execute(statement).scalars())


def with_choices(schema: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the schema of the form with a drop-down of these names, or with a text field if there are no names.

    A list of one name is an `enum` too: for a `const`, Prefect's UI shows a field that cannot be changed.

    Args:
        schema: The deployment's schema, with or without a drop-down.
        names: The names of the campaigns, in the order of the drop-down.

    Returns:
        The changed schema. The given one is not modified.
    """
    changed = deepcopy(dict(schema))
    properties = changed["definitions"][MODEL]["properties"]
    field = properties[FIELD]
    typed = dict(field["anyOf"][1]) if "anyOf" in field else {name: field.pop(name) for name in ("type", "pattern")}
    typed.pop("title", None)
    field.pop("anyOf", None)
    if names:
        listed = {"title": "Listed", "type": "string", "enum": list(names)}
        field["anyOf"] = [listed, {"title": "Other", **typed}]
    else:
        field.update(typed)
    return changed


async def offer_campaigns(engine: sa.Engine, prefect: PrefectApi) -> bool:
    """Update the drop-down to the campaigns in the database.

    Returns:
        Whether the form was changed.

    Raises:
        StateError: The deployment is not installed.
        UnavailableError: Prefect or the database does not answer.
    """
    changed = False
    while True:
        names = await asyncio.to_thread(launchable_campaigns, engine)
        schema = await prefect.schema(DEPLOYMENT)
        wanted = with_choices(schema, names)
        if wanted == schema:
            return changed
        await prefect.set_schema(DEPLOYMENT, wanted)
        # Again: another host may have applied a campaign since the database was read.
        changed = True
