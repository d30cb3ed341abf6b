"""The endpoint of a session: host, protection, login. Frozen, because pools are keyed by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from postroad.settings import RelaySettings, TlsMode
from postroad.smtp.dane import TlsaAssociation
from postroad.smtp.oauth import TokenSource


@dataclass(frozen=True, kw_only=True)
class LocalBinding:
    """The local address and the EHLO name of a sender's sessions.

    Attributes:
        source_address: Local IP address. None: the operating system chooses.
        helo: Name in EHLO. None: the default of the endpoint, or of this machine.
        sender: The sender's From address, by which limits are looked up. Sessions do not differ by it.
    """

    source_address: str | None = None
    helo: str | None = None
    sender: str | None = None


ANYWHERE = LocalBinding()


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A host to connect to. ``addresses``: its IP addresses; if empty, the system's resolver is asked."""

    host: str
    port: int
    addresses: tuple[str, ...] = ()
    origin: LocalBinding = ANYWHERE
    tls: TlsMode = TlsMode.STARTTLS
    verify_certificate: bool = True
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    tlsa: tuple[TlsaAssociation, ...] = ()
    """TLSA records that the certificate must match instead of a trusted authority (RFC 7672)."""
    username: str | None = None
    password: SecretStr | None = None
    tokens: TokenSource | None = None
    clear_text_login: bool = False
    connections: int = 10
    messages_per_connection: int = 100

    def __hash__(self) -> int:
        # A pool is looked up for every message. These fields nearly always suffice to tell endpoints apart.
        return hash((self.host, self.port, self.addresses, self.origin.source_address, self.origin.helo))

    @classmethod
    def of_relay(cls, relay: RelaySettings, tokens: TokenSource | None = None) -> Self:
        """Return the endpoint of a relay in the settings."""
        return cls(
            host=relay.host,
            port=relay.port,
            tls=relay.tls,
            verify_certificate=relay.verify_certificate,
            ca_file=relay.ca_file,
            client_certificate=relay.client_certificate,
            client_key=relay.client_key,
            username=relay.username,
            password=relay.password,
            tokens=tokens,
            clear_text_login=relay.clear_text_login,
            connections=relay.connections,
            messages_per_connection=relay.messages_per_connection,
        )

    def sent_from(self, origin: LocalBinding) -> Self:
        """Return a copy with the source address and EHLO name of an origin. A None there changes nothing."""
        source, helo = origin.source_address or self.origin.source_address, origin.helo or self.origin.helo
        return replace(self, origin=LocalBinding(source_address=source, helo=helo))

    @property
    def name(self) -> str:
        """Host and port, for logs and metrics."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
