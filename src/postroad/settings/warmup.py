"""How a sender warms up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, time
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

from pydantic import Field, model_validator

from postroad.settings.values import Section, ZoneName


class Preset(StrEnum):
    """How a daily cap grows."""

    CURVE = "curve"  # fast while small, slower as it grows
    LINEAR = "linear"  # so many more each day: for a mailbox
    SENDGRID = "sendgrid"
    SPARKPOST = "sparkpost"
    TABLE = "table"  # your own


class SeedPermission(StrEnum):
    """Why a seed list may be written to."""

    OWNED = "owned"  # its mailboxes are the operator's own
    OPTED_IN = "opted-in"  # its people asked for it


class SeedSettings(Section):
    """Mail to a seed list, day by day."""

    campaign: Path = Field(description="a campaign.yaml: whom it is for, and its templates, one of them for each day")
    permission: SeedPermission = Field(description="why they may be written to; nobody else is")
    per_day: int = Field(default=20, ge=1, le=10_000, description="messages a day, to all providers together")

    def relative_to(self, base: Path) -> Self:
        """Return the same with its path relative to a folder."""
        return self.model_copy(update={"campaign": base / self.campaign})


_TABLES = {Preset.SENDGRID, Preset.SPARKPOST, Preset.TABLE}


class WarmupSettings(Section):
    """Daily caps at each mailbox provider, and the hours that they are spread over."""

    preset: Preset = Preset.CURVE
    start: date | None = Field(default=None, description="nothing is sent before this day; unset: at once")
    first: int | None = Field(default=None, ge=1, description="cap of the first day")
    per_day: int = Field(default=1, ge=1, description="of `linear`: so many more each day")
    table: tuple[int, ...] = Field(default=(), description="of `table`: the caps, day by day; the last one stays")
    ceiling: int | None = Field(default=None, ge=1, description="it grows no further")
    opens: time = time(8)
    closes: time = Field(default=time(20), description="00:00: midnight, at which the day ends")
    seeds: SeedSettings | None = Field(default=None, description="mail of its own to a seed list")
    zone: ZoneName | None = Field(default=None, description="of the days and hours; unset: the setting time_zone")

    @model_validator(mode="after")
    def _is_a_plan(self) -> Self:
        if (self.preset is Preset.TABLE) != bool(self.table):
            raise ValueError("table belongs to preset 'table', and 'table' needs it")
        if self.table and (self.table[0] < 1 or list(self.table) != sorted(set(self.table))):
            raise ValueError("table starts at 1 or more, and each of its caps is above the one before")
        if self.preset in _TABLES and self.first is not None:
            raise ValueError(f"first is that of the table with preset '{self.preset}': leave it out")
        if self.opens.tzinfo is not None or self.closes.tzinfo is not None:
            raise ValueError("opens and closes are times of day without a zone: name it in zone")
        if self.closes != time() and self.closes <= self.opens:
            raise ValueError("closes is later in the day than opens")
        return self

    def relative_to(self, base: Path) -> Self:
        """Return the same with its paths relative to a folder."""
        seeds = self.seeds.relative_to(base) if self.seeds is not None else None
        return self.model_copy(update={"seeds": seeds})

    @property
    def plan(self) -> Self:
        """The same without what is each sender's own."""
        return self.model_copy(update={"seeds": None})


class _Sender(Protocol):
    @property
    def identities(self) -> tuple[str, ...]: ...
    @property
    def warmup(self) -> WarmupSettings | None: ...


def unlike_plans(senders: Mapping[str, _Sender]) -> Iterator[tuple[str, str, str]]:
    """Yield senders that share an identity and warm up by different plans: one, the one before it, the identity."""
    first: dict[str, str] = {}
    for name, sender in senders.items():
        for identity in sender.identities if sender.warmup is not None else ():
            other = first.setdefault(identity, name)
            warmup, before = sender.warmup, senders[other].warmup
            if warmup is not None and before is not None and warmup.plan != before.plan:
                yield name, other, identity
