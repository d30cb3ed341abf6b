"""The configuration of the sandbox: one frozen struct, read from a TOML file."""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum
from pathlib import Path

import msgspec

from postroad.errors import ConfigError
from postroad.sandbox.personas import require_shares
from postroad.sandbox.rules import SandboxRule

_FIELD = re.compile(r"(.*?)(?: - at `\$?\.?(.*)`)?", re.DOTALL)


class Extension(StrEnum):
    """An ESMTP keyword that can be switched off."""

    PIPELINING = "PIPELINING"
    SIZE = "SIZE"
    EIGHTBITMIME = "8BITMIME"
    SMTPUTF8 = "SMTPUTF8"
    ENHANCEDSTATUSCODES = "ENHANCEDSTATUSCODES"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"


class AuthMechanism(StrEnum):
    PLAIN = "PLAIN"
    LOGIN = "LOGIN"
    CRAM_MD5 = "CRAM-MD5"


class StorageMode(StrEnum):
    """Where accepted messages are stored."""

    MAILDIR = "maildir"
    LEDGER = "ledger"
    BOTH = "both"


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration of a sandbox, except for its clock and random numbers."""

    directory: str
    """Contains ``accepted.jsonl`` and ``Maildir/``. Created if missing."""
    keep: StorageMode = StorageMode.BOTH
    host: str = "127.0.0.1"
    port: int = 0
    """0: any free port, see ``Sandbox.port``."""
    tls_port: int | None = None
    """A second port that speaks TLS from the first octet (RFC 8314 §3.3); needs a certificate."""
    hostname: str = "mx.sandbox.test"
    """The name of the server in its replies."""

    certificate: str | None = None
    """PEM file with the certificate chain."""
    private_key: str | None = None
    """PEM file with its key."""
    require_tls: bool = False
    credentials: dict[str, str] = {}
    """User name to password. Without any, AUTH is not offered."""
    auth_mechanisms: tuple[AuthMechanism, ...] = (AuthMechanism.PLAIN, AuthMechanism.LOGIN, AuthMechanism.CRAM_MD5)
    require_auth: bool = False

    extensions: tuple[Extension, ...] = tuple(Extension)
    """The offered extensions. STARTTLS also needs a certificate, and AUTH needs credentials."""
    max_message_bytes: int = 25 * 1024 * 1024
    max_recipients: int = 100
    """RFC 5321 §4.5.3.1.8: at least 100."""
    max_line_bytes: int = 1000
    """Longest line of a message, with its CRLF. RFC 5321 §4.5.3.1.6: 1,000. 0: any."""
    max_command_errors: int = 20
    """Number of syntax errors after which the connection is closed."""
    idle_timeout_ms: int = 300_000
    """RFC 5321 §4.5.3.2.7: at least 5 minutes."""
    enforce_sync: bool = True
    """Close the connection of a client that violates pipelining (RFC 2920 §3.1)."""
    enforce_7bit: bool = True
    """Reject 8-bit content that was not announced with BODY=8BITMIME (RFC 6152 §3)."""
    data_without_recipients: bool = False
    """Reply 354 although every recipient was rejected, as some servers do, and reject at the dot."""

    address_tags: bool = True
    """Whether recipients' addresses can cause faults."""
    rules: tuple[SandboxRule, ...] = ()
    personas: dict[str, float] = {}
    """Share of the recipients' domains, by name in ``personas.toml``. Applied after the rules and the tags."""
    require_authentication: bool = False
    """Let personas reject messages that are unsigned or not aligned with From. DNS is not queried."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key come together")
        if self.certificate is None and (self.tls_port is not None or self.require_tls):
            raise ValueError("tls_port and require_tls need a certificate")
        if self.require_auth and not self.credentials:
            raise ValueError("require_auth needs credentials")
        require_shares(self.personas)

    def offers(self, extension: Extension) -> bool:
        if extension is Extension.STARTTLS:
            return extension in self.extensions and self.certificate is not None
        if extension is Extension.AUTH:
            return extension in self.extensions and bool(self.credentials)
        return extension in self.extensions


def load_config(path: Path) -> SandboxConfig:
    """Read the configuration. Paths in it are relative to the file.

    Args:
        path: The file.

    Returns:
        The configuration, with its paths resolved.

    Raises:
        ConfigError: The file cannot be read or is invalid. ``where`` names the file and the field.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The sandbox configuration cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"The sandbox configuration is not TOML: {error}", where=str(path)) from error
    try:
        config = msgspec.convert(raw, SandboxConfig)
    except msgspec.ValidationError as error:
        match = _FIELD.fullmatch(str(error))
        message, field = (match[1], match[2]) if match else (str(error), None)
        raise ConfigError(message, where=f"{path}: {field}" if field else str(path)) from error
    base = path.parent
    return msgspec.structs.replace(
        config,
        directory=str(base / config.directory),
        certificate=None if config.certificate is None else str(base / config.certificate),
        private_key=None if config.private_key is None else str(base / config.private_key),
    )
