"""Who is asked about names, and what is believed of the answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from postroad.settings.values import MAX_DURATION_MS, DurationMs, Section, ip_address_text


def _nameserver(text: str) -> str:
    host, port = split_nameserver(text)
    ip_address_text(host)
    if not 1 <= port <= 65535:
        raise ValueError(f"{text!r} has no port between 1 and 65535")
    return text


def split_nameserver(text: str) -> tuple[str, int]:
    """Address and port of ``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1`` or ``[2001:db8::1]:5353``."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, int(port) if port.isdecimal() else 0 if port else 53


class DnsSettings(Section):
    """How names are looked up."""

    nameservers: tuple[Annotated[str, AfterValidator(_nameserver)], ...] = Field(
        default=(), description="recursive resolvers, as 192.0.2.1 or 192.0.2.1:5353; none: the machine's own"
    )
    trust_ad: bool = Field(
        default=False,
        description="believe what the resolver says of DNSSEC: only of one that validates, over a safe way",
    )
    timeout_ms: DurationMs = Field(default=5_000, gt=0, le=MAX_DURATION_MS, description="for one question in all")
    concurrency: int = Field(
        default=100, ge=1, le=10_000, description="queries in flight, for each process; each takes a socket"
    )


BlocklistName = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", max_length=200)]


class DnsHealthSettings(Section):
    """What is made of a sender's DNS being well or not."""

    hold: bool = Field(default=True, description="hold back the mail of a sender whose domain fails")
    grace_ms: DurationMs = Field(
        default=86_400_000, ge=0, le=MAX_DURATION_MS, description="how long it may fail before it is held back"
    )
    preflight: Literal["warn", "fail"] = Field(
        default="warn", description="what a sender whose domain fails means for the launch of a campaign"
    )
    address_blocklists: tuple[BlocklistName, ...] = Field(
        default=("zen.spamhaus.org", "bl.spamcop.net"), description="lists that are asked about sending addresses"
    )
    domain_blocklists: tuple[BlocklistName, ...] = Field(
        default=("dbl.spamhaus.org",), description="lists that are asked about From and bounce domains"
    )
