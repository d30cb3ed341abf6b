"""Settings of `postroad console`: where it listens, who signs in how, and with which role."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_address

from pydantic import Field, SecretStr

from postroad.settings.types import (
    MAX_DURATION_MS,
    DurationMs,
    HostName,
    Name,
    NetworkText,
    RateField,
    RateSetting,
    Section,
)

LOCALHOST = "localhost"
EVERYONE = "*"
"""Name in `console.roles` of all who are not named."""


class AccessRole(StrEnum):
    """What a user of the console, or a key of the API, may do. Each role includes the ones before it."""

    VIEW = "view"
    SEND = "send"
    OPERATE = "operate"
    OWN = "own"

    def includes(self, other: AccessRole) -> bool:
        """Return whether this role may do what the other may."""
        ranks = list(AccessRole)
        return ranks.index(self) >= ranks.index(other)


class OidcSettings(Section):
    """Sign-in by an OpenID Connect provider."""

    issuer: str = Field(pattern=r"^https?://\S+$", max_length=500, description="its URL, without /.well-known")
    client_id: str = Field(min_length=1, max_length=200)
    client_secret: SecretStr = Field(description="secret of this client; set it in the environment")
    claim: Name = Field(default="email", description="claim that names the user")
    scopes: tuple[str, ...] = Field(default=("openid", "email", "profile"), description="requested scopes")


class ProxyHeaderSettings(Section):
    """Sign-in by a proxy that has authenticated the user and names the user in a header."""

    header: str = Field(pattern=r"^[A-Za-z0-9-]{1,100}$", description="header with the user's name")
    addresses: tuple[NetworkText, ...] = Field(min_length=1, description="addresses and networks of the proxies")


class ConsoleSettings(Section):
    """The web console. It is closed by default: it listens on loopback."""

    host: HostName = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8088, ge=0, le=65535, description="port to listen on")
    url: str | None = Field(
        default=None,
        pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+$",
        max_length=300,
        description="URL at which users reach it, without a path; unset: only on this machine",
    )
    trusted_proxies: tuple[NetworkText, ...] = Field(
        default=(), description="addresses and networks whose X-Forwarded-For is trusted"
    )
    session_ms: DurationMs = Field(
        default=43_200_000, ge=60_000, le=MAX_DURATION_MS, description="time after which a user signs in again"
    )
    idle_ms: DurationMs = Field(
        default=7_200_000, ge=60_000, le=MAX_DURATION_MS, description="idle time after which a session ends"
    )
    link_ms: DurationMs = Field(
        default=900_000, ge=10_000, le=86_400_000, description="time within which a sign-in link is used"
    )
    sign_in_rate: RateField = Field(
        default=RateSetting(count=10, per_ms=60_000), description="sign-in attempts of one client, and for one user"
    )
    oidc: OidcSettings | None = Field(default=None, description="unset: no sign-in by OpenID Connect")
    proxy: ProxyHeaderSettings | None = Field(default=None, description="unset: no header is trusted")
    roles: dict[Name, AccessRole] = Field(
        default_factory=dict, description="role of each user of oidc and proxy; `*`: of all others"
    )

    @property
    def on_loopback(self) -> bool:
        """Whether it listens on this machine only."""
        return is_loopback(self.host)

    def role_of(self, user: str) -> AccessRole | None:
        """Return the role of a user whom a provider or a proxy has authenticated. None: no access."""
        return self.roles.get(user, self.roles.get(EVERYONE))


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine."""
    if host.lower() == LOCALHOST:
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
