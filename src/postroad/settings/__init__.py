"""Loads the settings from postroad.toml and from environment variables, which take precedence.

Every field can be set by an environment variable: ``POSTROAD_`` and its name, with two underscores between levels
(``POSTROAD_ROUTES__RELAY__PASSWORD``). Secrets belong in the environment, or in files that it names (``…_FILE``).
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from postroad.errors import ConfigError
from postroad.field_types import FieldType
from postroad.settings.api import ApiSettings
from postroad.settings.approval import ApprovalSettings
from postroad.settings.audience import AudienceSettings
from postroad.settings.bounce import BounceSettings, InboundSettings, SourceKind, SourceSettings
from postroad.settings.calendar import CalendarSettings
from postroad.settings.canary import CanarySettings
from postroad.settings.cohort import CohortBreakerSettings, EvidenceSettings
from postroad.settings.console import AccessRole, ConsoleSettings, OidcSettings, ProxyHeaderSettings
from postroad.settings.delivery import DeliverySettings
from postroad.settings.dkim import DkimSettings
from postroad.settings.dns import DnsHealthSettings, DnsSettings
from postroad.settings.files import FilesSettings
from postroad.settings.frequency import FrequencyCaps
from postroad.settings.origin import line_of_key, settings_error, source_of, variable_error
from postroad.settings.preflight import PreflightSettings
from postroad.settings.queues import DEFAULT_QUEUES, QueueSettings, RetryBackoff
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
from postroad.settings.secret_files import EnvironmentSource
from postroad.settings.sender import SenderSettings
from postroad.settings.types import (
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
    section_of_defaults,
)
from postroad.settings.warmup import Preset, SeedPermission, SeedSettings, WarmupSettings, conflicting_plans
from postroad.settings.web import UnsubscribeScope, WebSettings
from postroad.settings.webhooks import MailgunWebhook, PostmarkWebhook, SendgridWebhook, SesWebhook, WebhookSettings
from postroad.settings.webhooks_out import EndpointName, WebhookEndpointSettings

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_QUEUES",
    "MAX_DURATION_MS",
    "REPLY_TOKEN",
    "AccessRole",
    "ApiSettings",
    "ApprovalSettings",
    "AudienceSettings",
    "BounceSettings",
    "CalendarSettings",
    "CanarySettings",
    "CohortBreakerSettings",
    "ConsoleSettings",
    "DeliverySettings",
    "DkimSelector",
    "DkimSettings",
    "DnsHealthSettings",
    "DnsSettings",
    "DurationMs",
    "EvidenceSettings",
    "FilesSettings",
    "HostName",
    "InboundSettings",
    "IpAddress",
    "MailAddress",
    "MailgunWebhook",
    "NetworkText",
    "OAuthSettings",
    "OidcSettings",
    "PostmarkWebhook",
    "PreflightSettings",
    "Preset",
    "ProxyHeaderSettings",
    "QueueSettings",
    "RateField",
    "RateSetting",
    "RelaySettings",
    "ReplyAddress",
    "RetentionSettings",
    "RetryBackoff",
    "RouteKind",
    "RouteSettings",
    "Section",
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


def find_config() -> Path | None:
    """Return the settings file: ``POSTROAD_CONFIG``, else postroad.toml in the working directory, else None."""
    if path := os.environ.get(CONFIG_VARIABLE):
        return Path(path)
    default = Path.cwd() / CONFIG_NAME
    return default if default.is_file() else None


class Settings(BaseSettings):
    """All settings. Paths in postroad.toml are relative to its folder."""

    model_config = SettingsConfigDict(
        env_prefix="POSTROAD_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    state_dir: Path = Field(default=Path(".postroad"), description="embedded servers, logs, secret key")
    redis_url: SecretStr | None = Field(default=None, description="unset: the embedded Valkey")
    redis_durable: bool = Field(default=False, description="the server keeps jobs, although it does not show it")
    database_url: SecretStr | None = Field(default=None, description="unset: SQLite in the state folder")
    public_url: str = Field(
        default="https://postroad.invalid",
        pattern=r"^https?://[!$-.0-;=@-~]+[!$-;=@-~]*$",  # ASCII without < and >, for header fields
        max_length=500,
        description="URL at which recipients reach `postroad web`, used in List-Unsubscribe",
    )
    secret_key: SecretStr | None = Field(default=None, description="signs tokens; unset: a key in the state folder")
    secret_keys: tuple[Annotated[SecretStr, Field(min_length=1)], ...] = Field(
        default=(), description="key ring: the first key signs, all keys verify; secret_key is its last key"
    )
    time_zone: ZoneName = Field(default="UTC", description="of recipients whose time zone is not known")
    campaigns: tuple[str, ...] = Field(default=(), description="campaign files that `postroad up` applies")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    alert_block: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]+/[a-z0-9-]+$",
        description="type and name of the Prefect block that sends alerts about paused or held mail",
    )
    frequency: FrequencyCaps = Field(
        default_factory=dict, description="classes of frequency caps: messages to one recipient in a span of time"
    )
    api: ApiSettings = ApiSettings()
    audiences: dict[Name, AudienceSettings] = Field(default_factory=dict)
    senders: dict[Name, SenderSettings] = Field(default_factory=dict)
    routes: dict[Name, RouteSettings] = Field(default_factory=dict)
    queues: dict[str, QueueSettings] = Field(default_factory=dict)
    approval: ApprovalSettings = section_of_defaults()
    delivery: DeliverySettings = section_of_defaults()
    bounce: BounceSettings = section_of_defaults()
    inbound: InboundSettings = section_of_defaults()
    cohort_breaker: CohortBreakerSettings = section_of_defaults()
    dns: DnsSettings = section_of_defaults()
    dns_health: DnsHealthSettings = section_of_defaults()
    calendar: CalendarSettings = section_of_defaults()
    canary: CanarySettings | None = Field(default=None, description="unset: no canary is sent")
    console: ConsoleSettings = section_of_defaults()
    files: FilesSettings = section_of_defaults()
    preflight: PreflightSettings = section_of_defaults()
    retention: RetentionSettings = section_of_defaults()
    web: WebSettings = section_of_defaults()
    webhooks_out: dict[EndpointName, WebhookEndpointSettings] = Field(default_factory=dict)

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
        return EnvironmentSource(settings_cls), init_settings

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read the settings from postroad.toml and the environment.

        Args:
            path: The settings file. None: the one that `find_config` returns.

        Returns:
            The settings.

        Raises:
            ConfigError: The file cannot be read, or a setting is not valid. It names the file with the line, or the
                variable.
        """
        path = path or find_config()
        text, values = _read_toml(path) if path is not None else ("", {})
        settings = cls._validate(values, path, text)
        settings._config_path = path.resolve() if path is not None else None
        settings._resolve_paths(path.parent.resolve() if path is not None else Path.cwd())
        settings._check_references(path, text)
        settings._warn_of_deprecated(path, text)
        return settings

    @classmethod
    def _validate(cls, values: Mapping[str, Any], path: Path | None, text: str) -> Self:
        """Return the settings, or raise ConfigError with all faults."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise settings_error(error, cls, path, text) from None
        except SettingsError as error:
            raise variable_error(error) from None

    def _resolve_paths(self, base: Path) -> None:
        """Make relative paths absolute."""
        resolved: dict[str, Any] = {
            "state_dir": (base / self.state_dir).resolve(),
            "routes": {name: route.relative_to(base) for name, route in self.routes.items()},
            "delivery": self.delivery.relative_to(base),
            "bounce": self.bounce.relative_to(base),
            "inbound": self.inbound.relative_to(base),
            "canary": self.canary.relative_to(base) if self.canary is not None else None,
            "senders": {name: sender.relative_to(base) for name, sender in self.senders.items()},
            "webhooks_out": {name: endpoint.relative_to(base) for name, endpoint in self.webhooks_out.items()},
        }
        for name, value in resolved.items():
            object.__setattr__(self, name, value)  # The model is frozen.

    def _warn_of_deprecated(self, path: Path | None, text: str) -> None:
        for name, queue in self.queues.items():
            if queue.shards is not None:
                log.warning(
                    "%s: queues.%s.shards is deprecated and has no effect. Remove it: the next release rejects it.",
                    source_of(type(self), path, text, ["queues", name, "shards"]),
                    name,
                )

    def _check_references(self, path: Path | None, text: str) -> None:
        for name, sender in self.senders.items():
            if sender.route not in self.routes:
                known = ", ".join(sorted(self.routes)) or "none"
                raise ConfigError(
                    f"there is no route named {sender.route!r} (known: {known})",
                    where=f"{source_of(type(self), path, text, ['senders', name, 'route'])}, senders.{name}.route",
                    remedy=f"Add a section [routes.{sender.route}], or name an existing route.",
                )
        for name, other, identity in conflicting_plans(self.senders):
            raise ConfigError(
                f"it differs from that of senders.{other}, but both send as {identity}, which has one warmup plan",
                where=f"{source_of(type(self), path, text, ['senders', name, 'warmup'])}, senders.{name}.warmup",
                remedy="Use the same settings for both, or different domains and source addresses.",
            )

    @property
    def config_path(self) -> Path | None:
        """The file that the settings were read from."""
        return self._config_path

    @property
    def base_dir(self) -> Path:
        """Folder that relative paths are relative to."""
        return self._config_path.parent if self._config_path else Path.cwd()

    def queue(self, name: str) -> QueueSettings:
        """Return the settings of a queue: each field as set, else its default for this queue."""
        default, given = DEFAULT_QUEUES.get(name, QueueSettings()), self.queues.get(name, QueueSettings())
        return default.model_copy(update={field: getattr(given, field) for field in given.model_fields_set})

    def sender(self, name: str) -> SenderSettings:
        """Return the settings of a sender. Raise ConfigError if it is not in postroad.toml."""
        if name not in self.senders:
            known = ", ".join(sorted(self.senders)) or "none"
            raise ConfigError(
                f"there is no sender named {name!r} (known: {known})",
                where=str(self._config_path or CONFIG_NAME),
                remedy=f"Add a section [senders.{name}] with address, postal_address and route.",
            )
        return self.senders[name]

    def field_types(self, audience: str) -> Mapping[str, FieldType]:
        """Return the declared types of an audience's merge fields."""
        return self.audiences[audience].fields if audience in self.audiences else {}

    @property
    def services(self) -> dict[str, Service]:
        """Mail services of routes, by name of the route."""
        return {name: route.service for name, route in self.routes.items() if route.service is not None}

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


def _read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text and the values of a TOML file. Raise ConfigError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(
            "there is no such file", where=str(path), remedy=f"Unset {CONFIG_VARIABLE} or correct it."
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: {error.reason} at byte {error.start}", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(path)) from None
