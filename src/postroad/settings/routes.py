"""Settings of routes: by relays, or directly to the mail hosts of each domain."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator

from postroad.settings.types import MAX_DURATION_MS, DurationMs, HostName, Section, section_of_defaults


class TlsMode(StrEnum):
    """TLS of a connection."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"  # STARTTLS if it is offered, with any certificate (RFC 7435)
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class RouteKind(StrEnum):
    """Kind of a route: a relay, or the recipient's mail hosts."""

    RELAY = "relay"
    DIRECT = "direct"


class Service(StrEnum):
    """A mail service that reports bounces and complaints by webhooks."""

    SES = "ses"
    SENDGRID = "sendgrid"
    POSTMARK = "postmark"
    MAILGUN = "mailgun"


class OAuthSettings(Section):
    """Source of access tokens for XOAUTH2 (RFC 6749 §6)."""

    token_url: str = Field(pattern=r"^https://[^\s/?#@]+[^\s#]*$", description="of the provider, https")
    client_id: str = Field(min_length=1)
    client_secret: SecretStr | None = None
    refresh_token: SecretStr
    scope: str | None = None
    ca_file: Path | None = Field(default=None, description="trusted authorities instead of the system's")


class TimeoutSettings(Section):
    """Timeouts of SMTP replies. RFC 5321 §4.5.3.2 gives minimums for those from greeting to dot."""

    connect_ms: DurationMs = Field(default=30_000, gt=0, le=MAX_DURATION_MS, description="for the TCP connection")
    greeting_ms: DurationMs = Field(
        default=300_000, gt=0, le=MAX_DURATION_MS, description="for the greeting, and each reply until login"
    )
    mail_ms: DurationMs = Field(default=300_000, gt=0, le=MAX_DURATION_MS)
    rcpt_ms: DurationMs = Field(default=300_000, gt=0, le=MAX_DURATION_MS)
    data_ms: DurationMs = Field(default=120_000, gt=0, le=MAX_DURATION_MS)
    dot_ms: DurationMs = Field(default=600_000, gt=0, le=MAX_DURATION_MS)
    opening_ms: DurationMs = Field(
        default=600_000, gt=0, le=MAX_DURATION_MS, description="for opening a session in total"
    )
    transaction_ms: DurationMs = Field(
        default=600_000, gt=0, le=MAX_DURATION_MS, description="for MAIL, RCPT and DATA in total"
    )


class _ConnectionSettings(Section):
    """Settings that the relays of a route may share."""

    tls: TlsMode = TlsMode.STARTTLS
    verify_certificate: bool = True
    ca_file: Path | None = None
    client_certificate: Path | None = Field(default=None, description="PEM, sent to the server; may contain its key")
    client_key: Path | None = None
    username: str | None = None
    password: SecretStr | None = None
    oauth: OAuthSettings | None = None
    clear_text_login: bool = Field(default=False, description="log in even if the connection may not be encrypted")
    connections: int = Field(default=10, ge=1, le=1000, description="concurrent connections of each worker process")
    messages_per_connection: int = Field(default=100, ge=1)

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative paths are resolved against a folder."""
        paths = {name: getattr(self, name) for name in ("ca_file", "client_certificate", "client_key")}
        update: dict[str, Any] = {name: base / path for name, path in paths.items() if path is not None}
        if self.oauth is not None and self.oauth.ca_file is not None:
            update["oauth"] = self.oauth.model_copy(update={"ca_file": base / self.oauth.ca_file})
        return self.model_copy(update=update) if update else self

    @property
    def logs_in(self) -> bool:
        return self.username is not None and (self.password is not None or self.oauth is not None)


class RelaySettings(_ConnectionSettings):
    """One relay: an SMTP submission host (RFC 6409). Fields that are not set have the values of its route."""

    host: HostName
    port: int = Field(default=587, ge=1, le=65535)
    weight: int = Field(default=1, ge=1, le=1000, description="share of the route's mail, relative to its other relays")


class RouteSettings(_ConnectionSettings):
    """A route of mail: one relay, a pool of relays, or directly to each domain's mail hosts."""

    kind: RouteKind = RouteKind.RELAY
    host: HostName | None = None
    port: int = Field(default=587, ge=1, le=65535)
    relays: tuple[RelaySettings, ...] = ()
    helo: HostName | None = Field(default=None, description="name in EHLO; unset: that of the host")
    timeouts: TimeoutSettings = section_of_defaults()
    shaped: bool | None = Field(
        default=None,
        description="apply the limits of shaping.toml, because it delivers directly to mailbox providers",
    )

    service: Service | None = Field(
        default=None, description="mail service of the relay: messages get a tag that its webhooks return"
    )

    @model_validator(mode="before")
    @classmethod
    def _direct_has_other_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("kind") == RouteKind.DIRECT:
            return {"port": 25, "tls": TlsMode.OPPORTUNISTIC} | values
        return values

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if self.kind is RouteKind.DIRECT:
            self._require_direct()
        else:
            self._require_relays()
        return self

    def _require_direct(self) -> None:
        if self.host is not None or self.relays or self.username is not None:
            raise ValueError("a direct route looks its hosts up: it has no host, relays or username")
        if self.service is not None:
            raise ValueError("a direct route has no mail service")
        if self.tls is TlsMode.IMPLICIT:
            raise ValueError("mail hosts do not support implicit TLS: use opportunistic, starttls or none")

    def _require_relays(self) -> None:
        if self.host is None and not self.relays:
            raise ValueError("it needs host, or a list of relays")
        if self.host is not None and self.relays:
            raise ValueError("a route has either a host or a list of relays")
        logins = [(relay.host.lower(), relay.port, relay.username) for relay in self.relay_pool]
        if len(set(logins)) < len(logins):
            raise ValueError("a relay is named twice with the same host, port and username: use its weight")
        for relay in self.relay_pool:
            if relay.logs_in and relay.tls in (TlsMode.NONE, TlsMode.OPPORTUNISTIC) and not relay.clear_text_login:
                raise ValueError(
                    f"a login at {relay.host} could reveal the password on the network: "
                    "use tls = 'starttls' or 'implicit', or clear_text_login = true"
                )
            if relay.oauth is not None and relay.username is None:
                raise ValueError("oauth needs a username: the mailbox that the token is for")
            if relay.oauth is not None and relay.password is not None:
                raise ValueError("a relay has either a password or oauth")
            if relay.client_key is not None and relay.client_certificate is None:
                raise ValueError("client_key needs a client_certificate")

    @property
    def is_shaped(self) -> bool:
        """Whether the limits of mailbox providers apply to it."""
        return self.kind is RouteKind.DIRECT if self.shaped is None else self.shaped

    @property
    def relay_pool(self) -> tuple[RelaySettings, ...]:
        """The relays with the shared settings of the route. A direct route has none."""
        shared = {name: getattr(self, name) for name in _ConnectionSettings.model_fields}
        if self.host is not None:
            return (RelaySettings(host=self.host, port=self.port).model_copy(update=shared),)
        return tuple(
            relay.model_copy(update={n: v for n, v in shared.items() if n not in relay.model_fields_set})
            for relay in self.relays
        )

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative paths, and those of its relays, are resolved against a folder."""
        relays = tuple(relay.relative_to(base) for relay in self.relays)
        return super().relative_to(base).model_copy(update={"relays": relays})
