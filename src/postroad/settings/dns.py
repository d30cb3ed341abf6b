"""Settings of DNS lookups, and of the checks of a sender's DNS."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from postroad.settings.types import MAX_DURATION_MS, DurationMs, Section, ip_address_text


def _nameserver(text: str) -> str:
    host, port = split_nameserver(text)
    ip_address_text(host)
    if not 1 <= port <= 65535:
        raise ValueError(f"{text!r} has no port between 1 and 65535")
    return text


def split_nameserver(text: str) -> tuple[str, int]:
    """Split ``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1`` or ``[2001:db8::1]:5353`` into address and port."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, int(port) if port.isdecimal() else 0 if port else 53


class DnsSettings(Section):
    """DNS lookups."""

    nameservers: tuple[Annotated[str, AfterValidator(_nameserver)], ...] = Field(
        default=(), description="recursive resolvers, such as 192.0.2.1 or 192.0.2.1:5353; none: those of the system"
    )
    trust_ad: bool = Field(
        default=False,
        description="trust the AD bit of the resolver; it must validate DNSSEC and be reached by a secure connection",
    )
    timeout_ms: DurationMs = Field(default=5_000, gt=0, le=MAX_DURATION_MS, description="timeout of a lookup in total")
    concurrency: int = Field(
        default=100, ge=1, le=10_000, description="concurrent queries of each process; each uses a socket"
    )


BlocklistName = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", max_length=200)]


class DnsHealthSettings(Section):
    """Effects of a sender's DNS health."""

    hold: bool = Field(default=True, description="hold back the mail of a sender whose domain fails")
    grace_ms: DurationMs = Field(
        default=86_400_000, ge=0, le=MAX_DURATION_MS, description="how long it may fail before mail is held back"
    )
    preflight: Literal["warn", "fail"] = Field(
        default="warn", description="level of a failing domain in a campaign's preflight"
    )
    address_blocklists: tuple[BlocklistName, ...] = Field(
        default=("zen.spamhaus.org", "bl.spamcop.net"), description="blocklists of sending IP addresses"
    )
    domain_blocklists: tuple[BlocklistName, ...] = Field(
        default=("dbl.spamhaus.org",), description="blocklists of From and bounce domains"
    )
