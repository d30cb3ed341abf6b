"""What may be set about `postroad web`."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from postroad.settings.values import HostName, Rate, RateField, Section
from postroad.settings.webhooks import WebhookSettings


def _network_text(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an IP address nor a network: {error}") from None


class UnsubscribeScope(StrEnum):
    """What somebody who unsubscribes is sent no more."""

    EVERYWHERE = "everywhere"
    AUDIENCE = "audience"


class WebSettings(Section):
    """The public endpoints."""

    host: HostName = Field(default="127.0.0.1", description="address that it listens at")
    port: int = Field(default=8087, ge=0, le=65535, description="port that it listens at")
    trusted_proxies: tuple[Annotated[str, AfterValidator(_network_text)], ...] = Field(
        default=(), description="addresses and networks whose X-Forwarded-For is believed"
    )
    rate: RateField = Field(default=Rate(count=1200, per_ms=60_000), description="requests of one client address")
    unsubscribe: UnsubscribeScope = Field(
        default=UnsubscribeScope.EVERYWHERE, description="everywhere, or of the campaign's audience only"
    )
    webhooks: WebhookSettings = WebhookSettings()
