"""What an operator may set: postroad.toml, and the environment, which wins.

Every field can be set by an environment variable: ``POSTROAD_`` and its name, with two underscores between
levels (``POSTROAD_ROUTES__RELAY__PASSWORD``). Secrets belong there, not in the file.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, assert_never
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from postroad.errors import ConfigError
from postroad.settings.bounce import BounceSettings, InboundSettings, SourceKind, SourceSettings
from postroad.settings.canary import CanarySettings
from postroad.settings.cohort import CohortBreakerSettings, EvidenceSettings
from postroad.settings.dkim import DkimSettings
from postroad.settings.dns import DnsHealthSettings, DnsSettings
from postroad.settings.files import FilesSettings
from postroad.settings.origin import line_of_key, settings_error, source_of
from postroad.settings.retention import RetentionSettings
from postroad.settings.routes import (
    OAuthSettings,
    RelaySettings,
    RouteKind,
    RouteSettings,
    Service,
    TimeoutSettings,
    TlsMode,
)
from postroad.settings.values import (
    MAX_DURATION_MS,
    REPLY_TOKEN,
    DkimSelector,
    DurationMs,
    HostName,
    IpAddress,
    MailAddress,
    Name,
    NetworkText,
    RateField,
    RateSetting,
    ReplyAddress,
    Section,
    ZoneName,
    parse_duration_ms,
)
from postroad.settings.warmup import Preset, SeedPermission, SeedSettings, WarmupSettings, unlike_plans
from postroad.settings.web import UnsubscribeScope, WebSettings
from postroad.settings.webhooks import (
    MailgunWebhook,
    PostmarkWebhook,
    SendgridWebhook,
    SesWebhook,
    WebhookSettings,
)

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_QUEUES",
    "MAX_DURATION_MS",
    "REPLY_TOKEN",
    "BounceSettings",
    "CanarySettings",
    "CohortBreakerSettings",
    "DeliverySettings",
    "DkimSettings",
    "DnsHealthSettings",
    "DnsSettings",
    "DurationMs",
    "EvidenceSettings",
    "FilesSettings",
    "InboundSettings",
    "MailgunWebhook",
    "OAuthSettings",
    "PostmarkWebhook",
    "Preset",
    "QueueSettings",
    "RateField",
    "RateSetting",
    "RelaySettings",
    "RetentionSettings",
    "RetryBackoff",
    "RouteKind",
    "RouteSettings",
    "SeedPermission",
    "SeedSettings",
    "SenderSettings",
    "SendgridWebhook",
    "Service",
    "SesWebhook",
    "Settings",
    "SourceKind",
    "SourceSettings",
    "TimeoutSettings",
    "TlsMode",
    "UnsubscribeScope",
    "WarmupSettings",
    "WebSettings",
    "WebhookSettings",
    "ZoneName",
    "find_config",
    "line_of_key",
    "parse_duration_ms",
]

log = logging.getLogger(__name__)

CONFIG_VARIABLE = "POSTROAD_CONFIG"
CONFIG_NAME = "postroad.toml"


class SenderSettings(Section):
    """A From identity, with what the law and the receivers want to see of it."""

    address: MailAddress
    name: str = Field(default="", pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)
    reply_to: ReplyAddress | None = Field(
        default=None, description="where replies go, if not to the From address; {token}: one of each touch's own"
    )
    postal_address: str = Field(
        min_length=10, pattern=r"^[^\x00]*$", description="shown in every message: CAN-SPAM §7704(a)(5)"
    )
    route: str
    bounce_domain: str | None = Field(
        default=None,
        pattern=r"^[^@\s<>\x00-\x1f\x7f]+$",
        max_length=255,
        description="domain of the return path; bounces go there",
    )
    rate: RateField | None = None
    dkim: tuple[DkimSettings, ...] = Field(default=(), description="keys that its messages are signed with")
    helo: HostName | None = Field(default=None, description="name in EHLO; unset: the route's, else this machine's")
    source_address: IpAddress | None = Field(default=None, description="address of this machine that mail leaves from")
    public_addresses: tuple[IpAddress, ...] = Field(
        default=(), description="addresses that receivers see its mail come from; none: source_address, where public"
    )
    dkim_selectors: tuple[DkimSelector, ...] = Field(
        default=(), description="selectors that others, such as a relay, sign its mail with"
    )
    warmup: WarmupSettings | None = Field(default=None, description="daily caps that grow; unset: it is warm")

    @model_validator(mode="after")
    def _signs_from_the_first(self) -> Self:
        if self.dkim and all(key.since is not None for key in self.dkim):
            raise ValueError("a dkim key without since must be there: until the others begin, nothing would be signed")
        return self

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2].lower()

    @property
    def identities(self) -> tuple[str, ...]:
        """What receivers know it by, the narrowest first: address, domain, source address."""
        return (self.address, self.domain, *([self.source_address] if self.source_address else []))

    def relative_to(self, base: Path) -> Self:
        """Return the same with its paths relative to a folder."""
        keys = [key.model_copy(update={"key_file": base / key.key_file}) if key.key_file else key for key in self.dkim]
        warmup = self.warmup.relative_to(base) if self.warmup is not None else None
        return self.model_copy(update={"dkim": tuple(keys), "warmup": warmup})


class RetryBackoff(StrEnum):
    """How the delays between attempts grow."""

    FIXED = "fixed"
    EXPONENTIAL = "exponential"
    LIST = "list"


def _require_one_shard(shards: int) -> int:
    if shards != 1:
        raise ValueError(
            "a queue is no longer split into shards. Let it run empty with the version before, set shards = 1 there, "
            "and remove the setting; or remove it and run `postroad queue rebuild`"
        )
    return shards


class QueueSettings(Section):
    """One queue's limits, and how often it tries."""

    concurrency: int = Field(default=10, ge=1, le=10_000, description="jobs at once, for each worker process")
    rate: RateField | None = Field(default=None, description="of the whole queue, all workers together")
    burst: int | None = Field(default=None, ge=1, description="jobs at once after a pause; default: 50 ms' worth")
    lease_ms: DurationMs = Field(default=60_000, ge=1000, le=MAX_DURATION_MS)
    drain_ms: DurationMs = Field(default=20_000, ge=0, le=MAX_DURATION_MS, description="SIGTERM to exit at the most")
    attempts: int = Field(default=3, ge=1, le=100, description="in all; the last that fails is a dead letter")
    backoff: RetryBackoff = RetryBackoff.EXPONENTIAL
    delay_ms: DurationMs = Field(default=5_000, ge=0, description="the one of `fixed`, the first of `exponential`")
    max_delay_ms: DurationMs = Field(default=3_600_000, ge=0, description="what `exponential` grows to")
    delays_ms: tuple[DurationMs, ...] = Field(default=(), description="those of `list`, of which the last repeats")
    sync_replicas: int = Field(default=0, ge=0, le=10, description="have a job or a mark before it counts")
    jitter: float = Field(default=0.0, ge=0, lt=1, description="0.1 spreads a delay over 90 % to 110 % of it")
    shards: Annotated[int, AfterValidator(_require_one_shard)] | None = Field(
        default=None, description="deprecated: only 1 is allowed, and the next release removes it"
    )

    @model_validator(mode="after")
    def _delays_are_those_of_the_backoff(self) -> Self:
        if (self.backoff is RetryBackoff.LIST) != bool(self.delays_ms):
            raise ValueError("delays_ms belongs to backoff 'list', and 'list' needs it")
        return self

    @property
    def retry_delays_ms(self) -> tuple[int, ...]:
        """Delay behind each attempt but the last, of which the last repeats."""
        match self.backoff:
            case RetryBackoff.LIST:
                return self.delays_ms
            case RetryBackoff.FIXED:
                return (self.delay_ms,)
            case RetryBackoff.EXPONENTIAL:
                return tuple(min(self.delay_ms * 2**n, self.max_delay_ms) for n in range(max(self.attempts - 1, 1)))
            case other:
                assert_never(other)


class DeliverySettings(Section):
    """How long a message is tried, and how far ahead the queue is filled."""

    horizon_ms: DurationMs = Field(
        default=900_000, ge=0, le=MAX_DURATION_MS, description="touches due within it are put on the queue"
    )
    expire_ms: DurationMs = Field(
        default=259_200_000, gt=0, le=MAX_DURATION_MS, description="a touch not accepted by then expires"
    )
    shaping: Path | None = Field(default=None, description="a shaping.toml, laid over the one that is shipped")
    destination_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="jobs at once for the mail hosts of one destination, for each worker process; unset: half of them",
    )
    allowed_networks: tuple[NetworkText, ...] = Field(
        default=(), description="networks that are not public, and to whose hosts direct routes deliver all the same"
    )


DEFAULT_QUEUES = {
    "email:send": QueueSettings(concurrency=10, rate=RateSetting(count=100, per_ms=1000)),
    "email:warmup": QueueSettings(concurrency=5, rate=RateSetting(count=50, per_ms=1000)),
    "bounce:process": QueueSettings(concurrency=10),
}
"""Every queue that Postroad uses, as shipped. What postroad.toml says of one replaces single fields."""


def find_config() -> Path | None:
    """Return the settings file: ``POSTROAD_CONFIG``, else postroad.toml here, else none."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    here = Path.cwd() / CONFIG_NAME
    return here if here.is_file() else None


class Settings(BaseSettings):
    """All settings. Paths in postroad.toml are relative to it."""

    model_config = SettingsConfigDict(
        env_prefix="POSTROAD_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    state_dir: Path = Field(default=Path(".postroad"), description="embedded servers, logs, secret key")
    redis_url: SecretStr | None = Field(default=None, description="unset: the embedded Valkey")
    database_url: SecretStr | None = Field(default=None, description="unset: SQLite in the state folder")
    public_url: str = Field(
        default="https://postroad.invalid",
        pattern=r"^https?://[!$-.0-;=@-~]+[!$-;=@-~]*$",  # ASCII, and no < or >: it is written into header fields
        max_length=500,
        description="where recipients reach `postroad web`: the address in List-Unsubscribe",
    )
    secret_key: SecretStr | None = Field(default=None, description="signs tokens; unset: kept in the state folder")
    secret_keys: tuple[Annotated[SecretStr, Field(min_length=1)], ...] = Field(
        default=(), description="a ring: the first key signs, and all verify; secret_key is its last, if both are set"
    )
    time_zone: ZoneName = Field(default="UTC", description="of recipients whose own is not known")
    campaigns: tuple[str, ...] = Field(default=(), description="campaign files that `postroad up` applies")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    alert_block: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]+/[a-z0-9-]+$",
        description="type and name of the Prefect block that tells somebody what is paused or held back",
    )
    senders: dict[Name, SenderSettings] = Field(default_factory=dict)
    routes: dict[Name, RouteSettings] = Field(default_factory=dict)
    queues: dict[str, QueueSettings] = Field(default_factory=dict)
    delivery: DeliverySettings = DeliverySettings()
    bounce: BounceSettings = BounceSettings()
    inbound: InboundSettings = InboundSettings()
    cohort_breaker: CohortBreakerSettings = CohortBreakerSettings()
    dns: DnsSettings = DnsSettings()
    dns_health: DnsHealthSettings = DnsHealthSettings()
    canary: CanarySettings | None = Field(default=None, description="unset: no canary is sent")
    files: FilesSettings = FilesSettings()
    retention: RetentionSettings = RetentionSettings()
    web: WebSettings = WebSettings()

    _config_path: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file's content arrives as the init values, so the environment goes first.
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read postroad.toml (see find_config) and the environment. Raises ConfigError with file, line, field."""
        path = path or find_config()
        values: dict[str, Any] = {}
        text = ""
        if path is not None:
            try:
                text = path.read_text(encoding="utf-8")
                values = tomllib.loads(text)
            except FileNotFoundError:
                raise ConfigError(
                    "there is no such file", where=str(path), remedy=f"Unset {CONFIG_VARIABLE} or mend it."
                ) from None
            except OSError as error:
                raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
            except UnicodeDecodeError as error:
                raise ConfigError(f"not UTF-8: {error.reason} at byte {error.start}", where=str(path)) from None
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"not TOML: {error}", where=str(path)) from None
        base = path.parent.resolve() if path is not None else Path.cwd()
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise settings_error(error, cls, path, text) from None
        except SettingsError as error:
            raise _variable_error(error) from None
        settings._config_path = path.resolve() if path is not None else None
        object.__setattr__(settings, "state_dir", (base / settings.state_dir).resolve())
        routes = {name: route.relative_to(base) for name, route in settings.routes.items()}
        object.__setattr__(settings, "routes", routes)
        if settings.delivery.shaping is not None:
            delivery = settings.delivery.model_copy(update={"shaping": base / settings.delivery.shaping})
            object.__setattr__(settings, "delivery", delivery)
        object.__setattr__(settings, "bounce", settings.bounce.relative_to(base))
        object.__setattr__(settings, "inbound", settings.inbound.relative_to(base))
        if settings.canary is not None:
            object.__setattr__(settings, "canary", settings.canary.relative_to(base))
        senders = {name: sender.relative_to(base) for name, sender in settings.senders.items()}
        object.__setattr__(settings, "senders", senders)
        settings._check_references(path, text)
        settings._warn_of_deprecated(path, text)
        return settings

    def _warn_of_deprecated(self, path: Path | None, text: str) -> None:
        for name, queue in self.queues.items():
            if queue.shards is not None:
                log.warning(
                    "%s: queues.%s.shards is deprecated and has no effect. Remove it: the next release refuses it.",
                    source_of(path, text, ["queues", name, "shards"]),
                    name,
                )

    def _check_references(self, path: Path | None, text: str) -> None:
        for name, sender in self.senders.items():
            if sender.route not in self.routes:
                known = ", ".join(sorted(self.routes)) or "none"
                raise ConfigError(
                    f"there is no route named {sender.route!r} (known: {known})",
                    where=f"{source_of(path, text, ['senders', name, 'route'])}, senders.{name}.route",
                    remedy=f"Add a section [routes.{sender.route}], or name one that is there.",
                )
        for name, other, identity in unlike_plans(self.senders):
            raise ConfigError(
                f"it is not that of senders.{other}, and both send as {identity}, which warms up by one plan",
                where=f"{source_of(path, text, ['senders', name, 'warmup'])}, senders.{name}.warmup",
                remedy="Write the same in both, or give them domains and source addresses of their own.",
            )

    @property
    def config_path(self) -> Path | None:
        """The file these settings were read from."""
        return self._config_path

    @property
    def base_dir(self) -> Path:
        """What relative paths are relative to."""
        return self._config_path.parent if self._config_path else Path.cwd()

    def queue(self, name: str) -> QueueSettings:
        """Limits of a queue: each as set, else as shipped."""
        shipped, given = DEFAULT_QUEUES.get(name, QueueSettings()), self.queues.get(name, QueueSettings())
        return shipped.model_copy(update={field: getattr(given, field) for field in given.model_fields_set})

    def sender(self, name: str) -> SenderSettings:
        """Raises ConfigError for a name that is not in postroad.toml."""
        if name not in self.senders:
            known = ", ".join(sorted(self.senders)) or "none"
            raise ConfigError(
                f"there is no sender named {name!r} (known: {known})",
                where=str(self._config_path or CONFIG_NAME),
                remedy=f"Add a section [senders.{name}] with address, postal_address and route.",
            )
        return self.senders[name]

    @property
    def services(self) -> dict[str, Service]:
        """The mail services behind routes, by the names of these."""
        return {name: route.service for name, route in self.routes.items() if route.service is not None}

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


def _variable_error(error: SettingsError) -> ConfigError:
    """What pydantic-settings says of a variable that is to hold a list or a table, and does not."""
    found = re.search(r'field "(\w+)"', str(error))
    field = found[1] if found else "settings"
    return ConfigError(
        f"{field}: it is not JSON, which a list or a table is in the environment",
        where=f"POSTROAD_{field.upper()}",
        remedy='Write ["one", "two"] or {"name": {"field": "value"}}.',
    )
