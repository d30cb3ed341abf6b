"""Settings of senders."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from postroad.settings.dkim import DkimSettings
from postroad.settings.types import DkimSelector, HostName, IpAddress, MailAddress, RateField, ReplyAddress, Section
from postroad.settings.warmup import WarmupSettings


class SenderSettings(Section):
    """A From address with its name, postal address, route, DKIM keys and warmup."""

    address: MailAddress
    name: str = Field(default="", pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)
    reply_to: ReplyAddress | None = Field(
        default=None, description="Reply-To; unset: the From address; {token}: replaced by the token of each touch"
    )
    postal_address: str = Field(
        min_length=10, pattern=r"^[^\x00]*$", description="shown in every message: CAN-SPAM §7704(a)(5)"
    )
    route: str
    bounce_domain: str | None = Field(
        default=None,
        pattern=r"^[^@\s<>\x00-\x1f\x7f]+$",
        max_length=255,
        description="domain of the return path, to which bounces are sent",
    )
    rate: RateField | None = None
    dkim: tuple[DkimSettings, ...] = Field(default=(), description="keys that sign its messages")
    helo: HostName | None = Field(default=None, description="name in EHLO; unset: that of the route or of the host")
    source_address: IpAddress | None = Field(
        default=None, description="local IP address that connections are made from"
    )
    public_addresses: tuple[IpAddress, ...] = Field(
        default=(), description="IP addresses that receivers see; none: source_address, if it is public"
    )
    dkim_selectors: tuple[DkimSelector, ...] = Field(
        default=(), description="selectors of keys with which others, such as a relay, sign its mail"
    )
    warmup: WarmupSettings | None = Field(default=None, description="daily caps that grow; unset: no warmup")

    @model_validator(mode="after")
    def _always_has_an_active_key(self) -> Self:
        if self.dkim and all(key.since is not None for key in self.dkim):
            raise ValueError("one dkim key must have no since, because mail before the first since would not be signed")
        return self

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2].lower()

    @property
    def identities(self) -> tuple[str, ...]:
        """Identities by which receivers rate it, the narrowest first: address, domain, source address."""
        return (self.address, self.domain, *([self.source_address] if self.source_address else []))

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative paths are resolved against a folder."""
        keys = [key.model_copy(update={"key_file": base / key.key_file}) if key.key_file else key for key in self.dkim]
        warmup = self.warmup.relative_to(base) if self.warmup is not None else None
        return self.model_copy(update={"dkim": tuple(keys), "warmup": warmup})
