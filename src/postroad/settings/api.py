"""Settings of the HTTP API."""

from __future__ import annotations

from pydantic import Field

from postroad.settings.types import RateField, RateSetting, Section


class ApiSettings(Section):
    """The HTTP API that `postroad console` serves."""

    rate: RateField = Field(default=RateSetting(count=1200, per_ms=60_000), description="requests of one API key")
