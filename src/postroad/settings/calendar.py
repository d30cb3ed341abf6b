"""Settings of the days on which campaigns with ``holidays: true`` send no mail."""

from __future__ import annotations

from datetime import date
from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from postroad.settings.types import Section

MAX_DAYS_OFF = 1_000
"""Entries of the list of days off."""


class DayRange(BaseModel):
    """Days from the first to the last one, both included. Written ``2026-12-24`` or ``2026-12-27..2026-12-31``."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    first: date
    last: date

    @classmethod
    def parse(cls, text: str) -> DayRange:
        begin, dots, end = (part.strip() for part in text.partition(".."))
        try:
            first = date.fromisoformat(begin)
            last = date.fromisoformat(end) if dots else first
        except ValueError:
            raise ValueError(
                f"{text[:40]!r} is not a day or a range of days: write 2026-12-24 or 2026-12-27..2026-12-31"
            ) from None
        if last < first:
            raise ValueError(f"{text!r} ends before it begins")
        return cls(first=first, last=last)

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last


@cache
def country_codes() -> frozenset[str]:
    """Return the country codes of ISO 3166-1 alpha-2, from the package tzdata."""
    lines = files("tzdata").joinpath("zoneinfo", "iso3166.tab").read_text("utf-8").splitlines()
    return frozenset(line.split("\t")[0] for line in lines if line and not line.startswith("#"))


def _country(code: str) -> str:
    if code not in country_codes():
        raise ValueError(f"{code[:40]!r} is not a country code of ISO 3166, such as DE")
    return code


def _days(value: object) -> object:
    return value if isinstance(value, DayRange | dict) else DayRange.parse(str(value))


class CalendarSettings(Section):
    """Days off, and the country of recipients whose country is not known."""

    days_off: tuple[Annotated[DayRange, BeforeValidator(_days)], ...] = Field(
        default=(), max_length=MAX_DAYS_OFF, description="days on which no mail is sent, in the recipient's time zone"
    )
    country: Annotated[str, AfterValidator(_country)] | None = Field(
        default=None, description="country of recipients without one, as a code of ISO 3166; unset: none"
    )
    subdivision: str | None = Field(
        default=None,
        pattern=r"^[A-Z0-9]{1,3}$",
        description="state or province of that country, as a code of ISO 3166-2 without the country",
    )
