"""Settings of warmup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, time
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

from pydantic import Field, model_validator

from postroad.settings.types import Section, ZoneName


class Preset(StrEnum):
    """How a daily cap grows."""

    CURVE = "curve"  # fast while small, slower as it grows
    LINEAR = "linear"  # a fixed number more each day: for a mailbox
    SENDGRID = "sendgrid"
    SPARKPOST = "sparkpost"
    TABLE = "table"  # your own


class SeedPermission(StrEnum):
    """Permission to send mail to a seed list."""

    OWNED = "owned"  # the operator owns the mailboxes
    OPTED_IN = "opted-in"  # the owners asked for the mail


class SeedSettings(Section):
    """Daily mail to a seed list."""

    campaign: Path = Field(description="a campaign.yaml with the audience and the templates, one for each day in turn")
    permission: SeedPermission = Field(description="permission to send mail to the list")
    per_day: int = Field(default=20, ge=1, le=10_000, description="messages a day, to all providers in total")

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative path is resolved against a folder."""
        return self.model_copy(update={"campaign": base / self.campaign})


_TABLES = {Preset.SENDGRID, Preset.SPARKPOST, Preset.TABLE}


class WarmupSettings(Section):
    """Daily caps at each mailbox provider, and the working hours."""

    preset: Preset = Preset.CURVE
    start: date | None = Field(default=None, description="nothing is sent before this day; unset: at once")
    first: int | None = Field(default=None, ge=1, description="cap of the first day")
    per_day: int = Field(default=1, ge=1, description="of `linear`: messages more each day")
    table: tuple[int, ...] = Field(default=(), description="of `table`: the caps, day by day; the last one repeats")
    ceiling: int | None = Field(default=None, ge=1, description="largest cap")
    opens: time = time(8)
    closes: time = Field(default=time(20), description="00:00: midnight at the end of the day")
    seeds: SeedSettings | None = Field(default=None, description="mail to a seed list")
    zone: ZoneName | None = Field(default=None, description="of the days and hours; unset: the setting time_zone")

    @model_validator(mode="after")
    def _is_a_plan(self) -> Self:
        if (self.preset is Preset.TABLE) != bool(self.table):
            raise ValueError("table is required with preset 'table' and only allowed there")
        if self.table and (self.table[0] < 1 or list(self.table) != sorted(set(self.table))):
            raise ValueError("table must start at 1 or more, and each cap must be larger than the previous one")
        if self.preset in _TABLES and self.first is not None:
            raise ValueError(f"preset '{self.preset}' has a table with a first cap: remove first")
        if self.opens.tzinfo is not None or self.closes.tzinfo is not None:
            raise ValueError("opens and closes must be times of day without a zone: set zone instead")
        if self.closes != time() and self.closes <= self.opens:
            raise ValueError("closes must be later in the day than opens")
        return self

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative paths are resolved against a folder."""
        seeds = self.seeds.relative_to(base) if self.seeds is not None else None
        return self.model_copy(update={"seeds": seeds})

    @property
    def plan(self) -> Self:
        """A copy without the seed list, which is not shared by senders."""
        return self.model_copy(update={"seeds": None})


class _WarmingSender(Protocol):
    @property
    def identities(self) -> tuple[str, ...]: ...
    @property
    def warmup(self) -> WarmupSettings | None: ...


def conflicting_plans(senders: Mapping[str, _WarmingSender]) -> Iterator[tuple[str, str, str]]:
    """Yield senders that share an identity but have different plans: the sender, an earlier sender, the identity."""
    first: dict[str, str] = {}
    for name, sender in senders.items():
        for identity in sender.identities if sender.warmup is not None else ():
            other = first.setdefault(identity, name)
            warmup, before = sender.warmup, senders[other].warmup
            if warmup is not None and before is not None and warmup.plan != before.plan:
                yield name, other, identity
