"""Settings of `postroad web`."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from postroad.settings.types import HostName, NetworkText, RateField, RateSetting, Section, section_of_defaults
from postroad.settings.webhooks import WebhookSettings


class UnsubscribeScope(StrEnum):
    """Mail that an unsubscribe ends."""

    EVERYWHERE = "everywhere"
    AUDIENCE = "audience"


class WebSettings(Section):
    """The public endpoints."""

    host: HostName = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8087, ge=0, le=65535, description="port to listen on")
    trusted_proxies: tuple[NetworkText, ...] = Field(
        default=(), description="addresses and networks whose X-Forwarded-For is trusted"
    )
    connections: int = Field(default=512, ge=1, le=100_000, description="concurrent connections of all clients")
    connections_per_client: int = Field(
        default=64, ge=1, le=100_000, description="concurrent connections, and requests, of one client address"
    )
    rate: RateField = Field(
        default=RateSetting(count=1200, per_ms=60_000), description="requests of one client address"
    )
    unsubscribe: UnsubscribeScope = Field(
        default=UnsubscribeScope.EVERYWHERE, description="everywhere, or only for the campaign's audience"
    )
    webhooks: WebhookSettings = section_of_defaults()
