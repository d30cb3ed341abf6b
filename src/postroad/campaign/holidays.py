"""Days without mail: public holidays of the recipient's country, and the days off of the settings."""

from __future__ import annotations

import re
from datetime import date
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from postroad.errors import ConfigError
from postroad.settings.calendar import CalendarSettings, country_codes

if TYPE_CHECKING:
    from holidays import HolidayBase

COUNTRY_FIELD: Final = "country"
SUBDIVISION_FIELD: Final = "subdivision"
"""Merge fields with the country of a recipient and its state or province, as codes of ISO 3166."""

_COMMON_CODES: Final = {"UK": "GB", "EL": "GR"}
"""Codes that are not of ISO 3166, but in common use."""

# The database links these abbreviations to cities, but they are used in many countries.
_NO_COUNTRY: Final = re.compile(r"[CEMW]ET|[EMH]ST|[ECMP]ST[5-8][ECMP]DT")


def place_of(country: object, subdivision: object) -> str:
    """Return the place of a recipient by merge fields: ``DE``, ``DE-BY``, or empty. It need not exist."""
    code = str(country or "").strip().upper()[:8]
    part = str(subdivision or "").strip().upper()[:8].removeprefix(f"{code}-")
    return f"{code}-{part}" if code and part else code


@cache
def _country_by_zone() -> dict[str, str]:
    """Return the country of each time zone of the IANA database that belongs to one country."""
    folder = files("tzdata").joinpath("zoneinfo")
    rows = (line.split("\t") for line in folder.joinpath("zone.tab").read_text("utf-8").splitlines())
    countries = {row[2]: row[0] for row in rows if not row[0].startswith("#")}
    for line in folder.joinpath("tzdata.zi").read_text("utf-8").splitlines():
        kind, _, names = line.partition(" ")
        target, _, alias = names.partition(" ")
        if kind == "L" and target in countries and not _NO_COUNTRY.fullmatch(alias):
            countries.setdefault(alias, countries[target])
    return countries


class HolidayCalendar:
    """Tells on which days a recipient gets no mail."""

    def __init__(self, settings: CalendarSettings | None = None) -> None:
        """Set up the calendar.

        Args:
            settings: The days off and the default country. None: neither.
        """
        self._settings = settings or CalendarSettings()
        self._region = lru_cache(maxsize=10_000)(self._find_region)

    def region(self, place: str, zone: str, default_zone: str = "") -> str:
        """Return the region whose public holidays apply to a recipient.

        It is the first one that is known: the place of the recipient, the country of the recipient's time zone, the
        country of the settings, the country of the campaign's time zone.

        Args:
            place: The place, as `place_of` returns it.
            zone: Name of the recipient's time zone. Empty: not known.
            default_zone: Name of the campaign's time zone.

        Returns:
            A country code, or one with a subdivision: ``DE-BY``. Empty: no country is known.
        """
        return self._region(place, zone, default_zone)

    def _find_region(self, place: str, zone: str, default_zone: str) -> str:
        countries = _country_by_zone()
        default = place_of(self._settings.country, self._settings.subdivision)
        candidates = (place, countries.get(zone, ""), default, countries.get(default_zone, ""))
        return next((region for candidate in candidates if (region := _known_region(candidate))), "")

    def knows(self, place: str) -> bool:
        """Return whether a place is a country, or a subdivision of one, with known public holidays."""
        region = _known_region(place)
        return bool(region) and ("-" in region) == ("-" in place)

    def require_valid(self) -> None:
        """Raise ConfigError if the settings name a subdivision that the country does not have."""
        default = place_of(self._settings.country, self._settings.subdivision)
        if (self._settings.subdivision and not self._settings.country) or (default and not self.knows(default)):
            raise ConfigError(
                f"{self._settings.subdivision} is not a subdivision of {self._settings.country or 'a country'} "
                "with public holidays of its own",
                where="calendar.subdivision",
                remedy="Use a code of ISO 3166-2 without the country, as BY for Bavaria, or remove it.",
            )

    def is_closed(self, day: date, region: str) -> bool:
        """Return whether no mail is sent on a day in a region."""
        if any(day in days for days in self._settings.days_off):
            return True
        public = _public_holidays(region) if region else None
        return public is not None and day in public


def _known_region(place: str) -> str:
    """Return the region of a place; its country alone if the subdivision is not known; empty for no country."""
    country, _, part = place.partition("-")
    country = _COMMON_CODES.get(country, country)
    if country not in country_codes() or _public_holidays(country) is None:
        return ""
    region = f"{country}-{part}"
    return region if part and _public_holidays(region) is not None else country


@cache
def _public_holidays(region: str) -> HolidayBase | None:
    """Return the public holidays of a country or a subdivision. None: they are not known."""
    import holidays  # a third of a second, and only campaigns with `holidays: true` need it

    country, _, part = region.partition("-")
    try:
        return holidays.country_holidays(country, subdiv=part or None)
    except NotImplementedError:
        return None
