"""Settings of bounce processing: its effects, mailboxes to fetch from, and the inbound server."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from postroad.settings.routes import TlsMode
from postroad.settings.types import (
    MAX_DURATION_MS,
    DurationMs,
    HostName,
    MailAddress,
    Name,
    RateField,
    RateSetting,
    Section,
)

UNIX = "unix:"
# An address and a port, with brackets around an IPv6 address; or the path of a socket.
Listen = Annotated[
    str, Field(pattern=r"^(unix:[^\x00]+|(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.-]+):\d{1,5})$", max_length=300)
]


class SourceKind(StrEnum):
    """Kind of a mailbox that mail is fetched from."""

    MAILDIR = "maildir"
    IMAP = "imap"


class SourceSettings(Section):
    """A dedicated mailbox to which bounces, complaints, unsubscribe mails or replies are delivered."""

    kind: SourceKind
    path: Path | None = Field(default=None, description="folder of a Maildir, which contains new, cur and tmp")
    host: HostName | None = Field(default=None, description="of an IMAP server")
    port: int | None = Field(default=None, ge=1, le=65535, description="unset: 993, and 143 without implicit TLS")
    tls: TlsMode = TlsMode.IMPLICIT
    ca_file: Path | None = Field(default=None, description="trusted authorities instead of the system's")
    clear_text_login: bool = Field(default=False, description="log in even if the connection is not encrypted")
    username: str | None = Field(default=None, min_length=1)
    password: SecretStr | None = Field(default=None, description="set it in the environment")
    mailbox: str = Field(default="INBOX", min_length=1, pattern=r"^[\x20-\x7e]+$")
    move_to: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^[\x20-\x7e]+$",
        description="IMAP mailbox to which processed mail is moved; unset: it stays and gets a keyword",
    )
    delete: bool = Field(default=False, description="delete processed mail; the database keeps it for bounce.keep_ms")
    timeout_ms: DurationMs = Field(default=30_000, ge=100, le=3_600_000, description="for each reply of the server")
    look_ms: DurationMs = Field(
        default=60_000,
        ge=100,
        le=MAX_DURATION_MS,
        description="poll interval of `postroad bounce watch` without notifications of new mail",
    )

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if self.kind is SourceKind.MAILDIR:
            if self.path is None:
                raise ValueError("a maildir needs its path")
            if self.host is not None or self.username is not None or self.move_to is not None:
                raise ValueError("a maildir has no host, username or move_to")
            return self
        if self.host is None or self.username is None:
            raise ValueError("an imap source needs host and username, and a password in the environment")
        if self.path is not None:
            raise ValueError("an imap source has no path; set mailbox instead")
        if self.delete and self.move_to is not None:
            raise ValueError("delete and move_to exclude each other: processed mail is deleted or moved")
        if self.move_to is not None and self.move_to == self.mailbox:
            raise ValueError("move_to is the mailbox itself")
        if self.tls is TlsMode.OPPORTUNISTIC:
            raise ValueError("opportunistic TLS could reveal the password to an attacker: use starttls or implicit")
        if self.tls is TlsMode.NONE and not self.clear_text_login:
            raise ValueError("tls = 'none' reveals the password on the network: it needs clear_text_login = true")
        return self

    @property
    def where(self) -> str:
        """Location of the mailbox, for display."""
        return str(self.path) if self.kind is SourceKind.MAILDIR else f"{self.host}, {self.mailbox}"

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative paths are resolved against a folder."""
        paths = {"path": self.path, "ca_file": self.ca_file}
        return self.model_copy(update={name: base / path for name, path in paths.items() if path is not None})


class BounceSettings(Section):
    """Effects of bounces and other returned mail, and its retention."""

    keep_ms: DurationMs = Field(
        default=2_592_000_000, ge=0, le=MAX_DURATION_MS, description="how long the content of a mail is kept"
    )
    reports_keep_ms: DurationMs = Field(
        default=90 * 86_400_000,
        gt=0,
        le=MAX_DURATION_MS,
        description="how long DMARC and TLS reports are kept after they arrived",
    )
    soft_limit: int = Field(default=3, ge=1, le=100, description="consecutive soft bounces that suppress an address")
    soft_window_ms: DurationMs = Field(
        default=1_209_600_000, gt=0, le=MAX_DURATION_MS, description="time within which soft bounces are consecutive"
    )
    match_window_ms: DurationMs = Field(
        default=432_000_000,
        gt=0,
        le=MAX_DURATION_MS,
        description="maximum age of a touch that is matched without token",
    )
    act_on_unsigned: bool = Field(default=False, description="act on mail without one of our tokens")
    sources: dict[Name, SourceSettings] = Field(default_factory=dict)

    def relative_to(self, base: Path) -> Self:
        """Return the same with the paths of its sources relative to a folder."""
        return self.model_copy(update={"sources": {n: source.relative_to(base) for n, source in self.sources.items()}})


class InboundSettings(Section):
    """Addresses of `postroad inbound`, and the mail that it accepts."""

    enabled: bool = Field(default=False, description="`postroad up` starts it, and `postroad doctor` checks it")
    smtp: Listen | None = Field(default="127.0.0.1:2525", description="address and port")
    lmtp: Listen | None = Field(default=None, description="address and port, or unix: and the path of a socket")
    host_name: HostName | None = Field(default=None, description="in the greeting; unset: the name of the host")
    domains: tuple[HostName, ...] = Field(
        default=(), description="accepted domains in addition to the senders' bounce domains"
    )
    addresses: tuple[MailAddress, ...] = Field(
        default=(), description="addresses accepted without a token, for replies and feedback loop reports"
    )
    senders: tuple[str, ...] = Field(
        default=(), description="envelope senders accepted at bounce addresses, in addition to the null path; * is any"
    )
    certificate: Path | None = Field(default=None, description="PEM; enables STARTTLS")
    private_key: Path | None = Field(default=None, description="PEM; unset: the key in the certificate's file")
    max_message_bytes: int = Field(default=2_097_152, ge=65_536, le=104_857_600)
    connections: int = Field(default=100, ge=1, le=10_000, description="concurrent connections of all clients")
    connections_per_client: int = Field(
        default=10, ge=1, le=10_000, description="concurrent connections of one SMTP client"
    )
    mails_per_client: RateField = Field(default=RateSetting(count=300, per_ms=60_000), description="of one SMTP client")
    submit_ms: DurationMs = Field(
        default=30_000, ge=100, le=MAX_DURATION_MS, description="time to enqueue a mail; then the reply is 451"
    )

    @field_validator("smtp", "lmtp", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        # TOML has no null, so an empty text removes the default.
        return None if value == "" else value

    @model_validator(mode="after")
    def _listens(self) -> Self:
        if self.smtp is None and self.lmtp is None:
            raise ValueError("no address is set: set smtp, lmtp or both")
        if self.private_key is not None and self.certificate is None:
            raise ValueError("private_key needs a certificate")
        return self

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative paths are resolved against a folder."""
        paths = {"certificate": self.certificate, "private_key": self.private_key}
        update: dict[str, Path | str] = {name: base / path for name, path in paths.items() if path is not None}
        if self.lmtp is not None and self.lmtp.startswith(UNIX):
            update["lmtp"] = f"{UNIX}{base / self.lmtp.removeprefix(UNIX)}"
        return self.model_copy(update=update)
