"""Settings of endpoints that get events by webhook: one section `[webhooks_out.NAME]` for each."""

from __future__ import annotations

import binascii
from base64 import b64decode
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from postroad.event_types import DEFAULT_EVENTS, EventType
from postroad.settings.types import DurationMs, NetworkText, Section

SECRET_PREFIX = "whsec_"  # noqa: S105  (a prefix)
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
"""Length of a signing secret (Standard Webhooks 1.0.0, *Signature scheme*)."""

EndpointName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$")]


def check_secret(text: str) -> str:
    """Return a signing secret of Standard Webhooks: ``whsec_`` and 24 to 64 bytes in base64.

    Args:
        text: The secret.

    Returns:
        The same text.

    Raises:
        ValueError: It is not such a secret. The message does not quote it.
    """
    try:
        key = b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"a signing secret is {SECRET_PREFIX} and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes in base64: "
            "`postroad webhook secret` makes one"
        )
    return text


def _secret(value: SecretStr) -> SecretStr:
    check_secret(value.get_secret_value())
    return value


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{text[:80]!r} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{text[:80]!r} is not a URL such as https://example.com/hooks")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it may contain no user and no password: the signature authenticates Postroad")
    if parts.fragment:
        raise ValueError("it may have no fragment (#…), which is never sent")
    return text


SigningSecret = Annotated[SecretStr, AfterValidator(_secret)]


class WebhookEndpointSettings(Section):
    """An endpoint that gets events, signed by Standard Webhooks."""

    url: Annotated[str, Field(max_length=500, pattern=r"^[\x21-\x7e]+$"), AfterValidator(_url)] = Field(
        description="where events are posted to; http:// only for an address in allow_networks"
    )
    events: tuple[EventType, ...] = Field(
        default=DEFAULT_EVENTS, min_length=1, description="types of events; unset: all but message.deferred"
    )
    secret: SigningSecret | None = Field(default=None, description="signs the events; set it in the environment")
    secrets: tuple[SigningSecret, ...] = Field(
        default=(), max_length=4, description="key ring for a rotation: each key signs, the first one first"
    )
    secret_file: Path | None = Field(default=None, description="file with one secret in each line, as in secrets")
    allow_networks: tuple[NetworkText, ...] = Field(
        default=(), description="networks that the URL may lead to although they are not public"
    )
    ca_file: Path | None = Field(default=None, description="trusted authorities instead of the system's")
    concurrency: int = Field(default=8, ge=1, le=200, description="concurrent requests, of all workers together")
    timeout_ms: DurationMs = Field(default=15_000, ge=1_000, le=60_000, description="deadline of a request")

    @model_validator(mode="after")
    def _one_source_of_secrets(self) -> Self:
        given = [self.secret is not None, bool(self.secrets), self.secret_file is not None]
        if sum(given) != 1:
            raise ValueError("name exactly one of secret, secrets and secret_file: `postroad webhook secret` makes one")
        if urlsplit(self.url).scheme == "http" and not self.allow_networks:
            raise ValueError("url: events contain addresses of people: use https://, or name allow_networks")
        return self

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose paths are relative to a folder."""
        paths = {name: getattr(self, name) for name in ("secret_file", "ca_file")}
        return self.model_copy(update={name: base / path for name, path in paths.items() if path is not None})
