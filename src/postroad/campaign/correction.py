"""A correction: a campaign to exactly the recipients whom another campaign reached.

Its audience is made of the touches of that campaign, each time the draft is applied. Suppressions and unsubscribes of
that campaign's own audience hold for it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import sqlalchemy as sa
from pydantic import BeforeValidator, Field

from postroad.campaign.audience import open_audience
from postroad.campaign.steps import NAME_PATTERN, Strict
from postroad.errors import ConfigError, StateError, unknown_name
from postroad.printable import counted
from postroad.store.bulk import found_sql, id_rows
from postroad.store.campaign import Campaign, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import LIVE, TouchState
from postroad.store.recipient import AudienceImport
from postroad.store.touch_count import counts_by_step
from postroad.store.touch_page import touch_pages
from postroad.store.touches.transitions import states_sql
from postroad.store.types import UtcDateTime
from postroad.store.variant_split import variant_names

_SOURCE = "correction of campaign "
"""Beginning of the path of the import that stands for the touches."""
STEP = 400
"""Members that one transaction adds or removes."""


class CorrectsDefinition(Strict):
    """The campaign that is corrected."""

    campaign: str = Field(pattern=NAME_PATTERN)
    step: str | None = Field(default=None, description="only recipients of this email step; unset: of any")
    variant: str | None = Field(default=None, description="only recipients of this variant of the step; unset: of any")
    unknown: bool = Field(default=False, description="also recipients of whom it is unknown whether they got it")


CorrectsField = Annotated[
    CorrectsDefinition, BeforeValidator(lambda value: {"campaign": value} if isinstance(value, str) else value)
]
"""The name of a campaign, or a mapping."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What the campaign table stores of a correction. ``audience_id``: that of the corrected campaign."""

    row: dict[str, Any]
    audience_id: int


def prepare_correction(
    engine: sa.Engine, name: str, corrects: CorrectsDefinition, now: datetime, *, where: str
) -> Correction:
    """Fill the audience of a correction, in steps of a thousand recipients. Idempotent.

    Args:
        engine: The database.
        name: Name of the correction, and of its audience.
        corrects: The campaign that is corrected.
        now: The time.
        where: The file of the correction, for errors.

    Returns:
        The correction.

    Raises:
        StateError: There is no such campaign or step, or some of its messages have not ended.
        ConfigError: The audience of this name has other recipients.
    """
    campaign, step_id = _require_ended(engine, corrects, where)
    _require_variant(engine, campaign, corrects, where)
    audience_id, import_id = _open(engine, name, corrects, now, where)
    wanted = (TouchState.ACCEPTED, TouchState.UNKNOWN) if corrects.unknown else (TouchState.ACCEPTED,)
    _remove_others(engine, audience_id, import_id, _reached(campaign, step_id, corrects.variant, wanted))
    for page in touch_pages(engine, campaign.id or 0, step_id=step_id):
        reached = [
            touch.recipient_id for touch in page if touch.state in wanted and corrects.variant in (None, touch.variant)
        ]
        for start in range(0, len(reached), STEP):
            with write(engine) as connection:
                _add(connection, audience_id, import_id, reached[start : start + STEP], now)
    return Correction(
        row=_row(campaign, step_id, corrects), audience_id=campaign.permission_audience_id or campaign.audience_id
    )


def correction_row(connection: sa.Connection, corrects: CorrectsDefinition | None) -> dict[str, Any] | None:
    """Return what the campaign table stores of a correction; None for another campaign, or without that step."""
    if corrects is None:
        return None
    campaign = find_campaign(connection, corrects.campaign)
    ids = {step.name: step.id for step in steps_of(connection, campaign.id or 0)}
    return _row(campaign, ids.get(corrects.step) if corrects.step is not None else None, corrects)


def _row(campaign: Campaign, step_id: int | None, corrects: CorrectsDefinition) -> dict[str, Any]:
    row = {"campaign": campaign.id, "step": step_id, "unknown": corrects.unknown}
    return row if corrects.variant is None else {**row, "variant": corrects.variant}


def _require_ended(engine: sa.Engine, corrects: CorrectsDefinition, where: str) -> tuple[Campaign, int | None]:
    """Return the corrected campaign and step. Raise StateError if a message of it may still reach a recipient."""
    with read(engine) as connection:
        campaign = find_campaign(connection, corrects.campaign)
        emails = {step.name: step.id for step in steps_of(connection, campaign.id or 0) if step.kind == "email"}
        counts = counts_by_step(connection, campaign.id or 0)
    if corrects.step is not None and corrects.step not in emails:
        raise unknown_name("email step", corrects.step, list(emails))
    step_id = emails[corrects.step] if corrects.step is not None else None
    of_steps = [counts.get(step_id, {})] if step_id is not None else list(counts.values())
    live = sum(states.get(state, 0) for states in of_steps for state in LIVE)
    if live:
        step = f" --step {corrects.step}" if corrects.step else ""
        stop = f"`postroad campaign recall {corrects.campaign}{step}`"
        raise StateError(
            f"{counted(live, 'message')} of campaign {corrects.campaign} may still arrive, from the queue or the wire",
            where=where,
            remedy=f"Stop it first: {stop}. Messages on the wire end within minutes.",
        )
    return campaign, step_id


def _require_variant(engine: sa.Engine, campaign: Campaign, corrects: CorrectsDefinition, where: str) -> None:
    """Raise ConfigError if a variant is named that the step does not have, or without its step."""
    if corrects.variant is None:
        return
    if corrects.step is None:
        raise ConfigError(
            "a variant is named without its step", where=f"{where}, corrects.variant", remedy="Add corrects.step."
        )
    with read(engine) as connection:
        steps = {step.name: step for step in steps_of(connection, campaign.id or 0)}
    known = variant_names(steps[corrects.step].settings)
    if corrects.variant not in known:
        error = unknown_name(f"variant of step {corrects.step}", corrects.variant, list(known))
        raise ConfigError(error.message, where=f"{where}, corrects.variant", remedy=error.remedy)


def _open(engine: sa.Engine, name: str, corrects: CorrectsDefinition, now: datetime, where: str) -> tuple[int, int]:
    """Return the audience of a correction, and the import that stands for the touches."""
    unknown = ", also unknown" if corrects.unknown else ""
    variant = f", variant {corrects.variant}" if corrects.variant else ""
    path = f"{_SOURCE}{corrects.campaign}, {corrects.step or 'every step'}{variant}{unknown}"
    imports = sa.text("SELECT id, path FROM audience_import WHERE audience_id = :id ORDER BY id")
    with write(engine) as connection:
        audience_id = open_audience(connection, name, now)
        known = {row.path: row.id for row in connection.execute(imports, {"id": audience_id})}
        if any(not other.startswith(_SOURCE) for other in known):
            raise ConfigError(
                f"the audience {name} has recipients of other imports",
                where=f"{where}, name",
                remedy="Give the correction a name that no audience has.",
            )
        if path not in known:
            new = sa.insert(AudienceImport).values(
                audience_id=audience_id,
                path=path,
                rows_total=0,
                started_at=now,
                finished_at=now,
                current_key=f"#{audience_id}-{len(known)}",
            )
            known[path] = int(connection.execute(new.returning(AudienceImport.id)).scalar_one())  # type: ignore[call-overload]
    return audience_id, known[path]


class _Reached(NamedTuple):
    """SQL condition that a touch of the correction reached a member, and its parameters."""

    sql: str
    parameters: dict[str, Any]


def _reached(campaign: Campaign, step_id: int | None, variant: str | None, wanted: Sequence[TouchState]) -> _Reached:
    # With + 0 only the index of recipients fits.
    sql = "touch.recipient_id = audience_member.recipient_id AND touch.campaign_id + 0 = :campaign_id"
    sql += " AND touch.step_id + 0 = :step_id" if step_id is not None else ""
    sql += " AND touch.variant = :variant" if variant is not None else ""
    values = {"campaign_id": campaign.id, "step_id": step_id, "variant": variant}
    return _Reached(
        found_sql(f"touch WHERE {sql} AND touch.state {states_sql(wanted)}"),
        {name: value for name, value in values.items() if value is not None},
    )


def _remove_others(engine: sa.Engine, audience_id: int, import_id: int, reached: _Reached) -> None:
    """Remove the members of an earlier apply for other touches, and those whose message did not arrive after all.

    Transactions that read find them, a page at a time.
    """
    other = f"(import_id <> :import_id OR NOT {reached.sql})"
    page = sa.text(
        f"SELECT recipient_id, {other} AS other FROM audience_member WHERE audience_id = :id AND recipient_id > :after "
        "ORDER BY recipient_id LIMIT :limit"
    )
    # A range of recipients, because PostgreSQL reads the whole audience for a list of them before its first ANALYZE.
    remove = sa.text(
        "DELETE FROM audience_member WHERE audience_id = :id AND recipient_id > :after AND recipient_id <= :last "
        f"AND {other}"
    )
    values = {"id": audience_id, "import_id": import_id, **reached.parameters}
    after = 0
    while True:
        with read(engine) as connection:
            members = connection.execute(page, {**values, "after": after, "limit": STEP}).all()
        if not members:
            return
        last = members[-1].recipient_id
        if any(member.other for member in members):
            with write(engine) as connection:
                connection.execute(remove, {**values, "after": after, "last": last})
        after = last


def _add(connection: sa.Connection, audience_id: int, import_id: int, recipient_ids: list[int], now: datetime) -> None:
    item, parameters = id_rows(connection, recipient_ids)
    at = ":now" if connection.dialect.name == "sqlite" else "CAST(:now AS timestamptz)"
    statement = sa.text(
        "INSERT INTO audience_member (audience_id, recipient_id, import_id, joined_at) "
        f"SELECT CAST(:audience_id AS BIGINT), batch.id, CAST(:import_id AS BIGINT), {at} "
        f"FROM {item} WHERE true ORDER BY batch.id ON CONFLICT (audience_id, recipient_id) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    values = {"audience_id": audience_id, "import_id": import_id, "now": now, **parameters}
    connection.execute(statement, values)
