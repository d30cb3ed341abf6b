"""How mail leaves: by relays, or directly to the mail hosts of each domain."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator

from postroad.settings.values import MAX_DURATION_MS, DurationMs, HostName, Section


class TlsMode(StrEnum):
    """How a connection is protected."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"  # STARTTLS where it is offered, whatever the certificate (RFC 7435)
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class RouteKind(StrEnum):
    """Who is connected to."""

    RELAY = "relay"
    DIRECT = "direct"


class Service(StrEnum):
    """A relay that tells by webhooks what became of the mail that it passed on."""

    SES = "ses"
    SENDGRID = "sendgrid"
    POSTMARK = "postmark"
    MAILGUN = "mailgun"


class OAuthSettings(Section):
    """Where access tokens for XOAUTH2 come from (RFC 6749 §6)."""

    token_url: str = Field(pattern=r"^https://[^\s/?#@]+[^\s#]*$", description="of the provider, https")
    client_id: str = Field(min_length=1)
    client_secret: SecretStr | None = None
    refresh_token: SecretStr
    scope: str | None = None
    ca_file: Path | None = Field(default=None, description="authorities to trust instead of the system's")


class TimeoutSettings(Section):
    """How long each reply is waited for. RFC 5321 §4.5.3.2 gives the least for those from greeting to dot."""

    connect_ms: DurationMs = Field(default=30_000, gt=0, le=MAX_DURATION_MS, description="until a connection stands")
    greeting_ms: DurationMs = Field(
        default=300_000, gt=0, le=MAX_DURATION_MS, description="for the greeting, and each step until a session stands"
    )
    mail_ms: DurationMs = Field(default=300_000, gt=0, le=MAX_DURATION_MS)
    rcpt_ms: DurationMs = Field(default=300_000, gt=0, le=MAX_DURATION_MS)
    data_ms: DurationMs = Field(default=120_000, gt=0, le=MAX_DURATION_MS)
    dot_ms: DurationMs = Field(default=600_000, gt=0, le=MAX_DURATION_MS)
    opening_ms: DurationMs = Field(
        default=600_000, gt=0, le=MAX_DURATION_MS, description="for all that opens a session, together"
    )
    transaction_ms: DurationMs = Field(
        default=600_000, gt=0, le=MAX_DURATION_MS, description="for MAIL, RCPT and DATA, together"
    )


class _Connecting(Section):
    """What relays of a route may have in common."""

    tls: TlsMode = TlsMode.STARTTLS
    verify_certificate: bool = True
    ca_file: Path | None = None
    client_certificate: Path | None = Field(default=None, description="PEM, shown to the server; its key may be in it")
    client_key: Path | None = None
    username: str | None = None
    password: SecretStr | None = None
    oauth: OAuthSettings | None = None
    clear_text_login: bool = Field(default=False, description="log in although the connection may not be encrypted")
    connections: int = Field(default=10, ge=1, le=1000, description="open at once, for each worker process")
    messages_per_connection: int = Field(default=100, ge=1)

    def relative_to(self, base: Path) -> Self:
        """Return the same with its paths relative to a folder."""
        paths = {name: getattr(self, name) for name in ("ca_file", "client_certificate", "client_key")}
        update: dict[str, Any] = {name: base / path for name, path in paths.items() if path is not None}
        if self.oauth is not None and self.oauth.ca_file is not None:
            update["oauth"] = self.oauth.model_copy(update={"ca_file": base / self.oauth.ca_file})
        return self.model_copy(update=update) if update else self

    @property
    def logs_in(self) -> bool:
        return self.username is not None and (self.password is not None or self.oauth is not None)


class RelaySettings(_Connecting):
    """One relay: an SMTP submission host (RFC 6409). What it does not say, its route says."""

    host: HostName
    port: int = Field(default=587, ge=1, le=65535)
    weight: int = Field(default=1, ge=1, le=1000, description="share of the route's mail, beside its other relays")


class RouteSettings(_Connecting):
    """A way that mail leaves by: one relay, a pool of them, or directly to each domain's mail hosts."""

    kind: RouteKind = RouteKind.RELAY
    host: HostName | None = None
    port: int = Field(default=587, ge=1, le=65535)
    relays: tuple[RelaySettings, ...] = ()
    helo: HostName | None = Field(default=None, description="name in EHLO; unset: this machine's")
    timeouts: TimeoutSettings = TimeoutSettings()
    shaped: bool | None = Field(
        default=None,
        description="it reaches mailbox providers itself, so shaping.toml's limits hold",
    )

    service: Service | None = Field(
        default=None, description="the mail service behind it: messages leave with a tag that its webhooks bring back"
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
            raise ValueError("a direct route finds its hosts itself: it has no host, relays or username")
        if self.service is not None:
            raise ValueError("a direct route has no mail service behind it")
        if self.tls is TlsMode.IMPLICIT:
            raise ValueError("mail hosts take no TLS from the first octet: write opportunistic, starttls or none")

    def _require_relays(self) -> None:
        if self.host is None and not self.relays:
            raise ValueError("it needs host, or relays: a list of them")
        if self.host is not None and self.relays:
            raise ValueError("a route has a host, or a list of relays, and not both")
        logins = [(relay.host.lower(), relay.port, relay.username) for relay in self.relay_pool]
        if len(set(logins)) < len(logins):
            raise ValueError("a relay is named twice with the same host, port and username: use its weight")
        for relay in self.relay_pool:
            if relay.logs_in and relay.tls in (TlsMode.NONE, TlsMode.OPPORTUNISTIC) and not relay.clear_text_login:
                raise ValueError(
                    f"logging in at {relay.host} could show the password to all on the way: "
                    "write tls = 'starttls' or 'implicit', or clear_text_login = true"
                )
            if relay.oauth is not None and relay.username is None:
                raise ValueError("oauth needs a username beside it: the mailbox that the token is for")
            if relay.oauth is not None and relay.password is not None:
                raise ValueError("a relay has a password or oauth, and not both")
            if relay.client_key is not None and relay.client_certificate is None:
                raise ValueError("client_key is of no use without client_certificate")

    @property
    def is_shaped(self) -> bool:
        """Whether the limits of mailbox providers hold for it."""
        return self.kind is RouteKind.DIRECT if self.shaped is None else self.shaped

    @property
    def relay_pool(self) -> tuple[RelaySettings, ...]:
        """The relays, each with what the route says for all of them. A direct route has none."""
        shared = {name: getattr(self, name) for name in _Connecting.model_fields}
        if self.host is not None:
            return (RelaySettings(host=self.host, port=self.port).model_copy(update=shared),)
        return tuple(
            relay.model_copy(update={n: v for n, v in shared.items() if n not in relay.model_fields_set})
            for relay in self.relays
        )

    def relative_to(self, base: Path) -> Self:
        """Return the same with its paths, and those of its relays, relative to a folder."""
        relays = tuple(relay.relative_to(base) for relay in self.relays)
        return super().relative_to(base).model_copy(update={"relays": relays})
