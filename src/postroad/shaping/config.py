"""Reads shaping.toml: the shipped file, overridden by the operator's file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from postroad.dns.providers import MAX_SITE, OTHER_PROVIDERS
from postroad.errors import ConfigError
from postroad.field_faults import combined_error, field_faults
from postroad.gates.name import GateKind, GateName, Receiver, SenderRoute
from postroad.settings import Settings, line_of_key
from postroad.shaping.limits import Level, LimitScope, LimitSource, LimitTable, ReceiverLimits, merge_limits
from postroad.shaping.rules import PACE, Pattern, ReplyCondition, ShapingRule
from postroad.smtp.reply import Reply

SHIPPED = "shaping.toml of the package"
MAX_COLUMN = 100
"""Length of the names of rules and providers: the size of their columns."""


class AdaptiveRate(ReplyCondition):
    """Which refusals mean that mail is sent too fast. ``unless``: text of refusals that mean something else."""

    unless: Pattern | None = Field(default=None, alias="except")

    @cached_property
    def _unless(self) -> re.Pattern[str] | None:
        return re.compile(self.unless, re.IGNORECASE) if self.unless is not None else None

    def matches(self, reply: Reply) -> bool:
        """Return whether a receiver replied that mail was sent too fast."""
        return super().matches(reply) and (self._unless is None or self._unless.search(reply.text) is None)


class Shaping(BaseModel):
    """All of a shaping.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: LimitTable
    provider: dict[str, LimitTable] = Field(default_factory=dict)
    site: dict[str, LimitTable] = Field(default_factory=dict)
    domain: dict[str, LimitTable] = Field(default_factory=dict)
    rule: dict[str, ShapingRule] = Field(default_factory=dict)
    pace: AdaptiveRate

    @field_validator("rule")
    @classmethod
    def _reject_reserved_name(cls, rules: dict[str, ShapingRule]) -> dict[str, ShapingRule]:
        if PACE in rules:
            raise ValueError(f"{PACE!r} is a reserved name, so no rule can have it")
        return rules

    @field_validator("rule", "provider")
    @classmethod
    def _check_name_length(cls, tables: dict[str, Any]) -> dict[str, Any]:
        for name in tables:
            if not 0 < len(name) <= MAX_COLUMN:
                raise ValueError(f"{name!r} has {len(name)} characters: give it a name of 1 to {MAX_COLUMN}")
        return tables

    @field_validator("site", "domain")
    @classmethod
    def _check_gate_name(cls, tables: dict[str, LimitTable]) -> dict[str, LimitTable]:
        for name in tables:
            if name != name.lower() or re.search(r"[\s/:]", name) or not 0 < len(name) <= MAX_SITE:
                raise ValueError(f"{name!r} is not a site or domain: write it in lower case, as `postroad` shows it")
        return tables

    @field_validator("default", "site", "domain", "provider")
    @classmethod
    def _check_total_connections(cls, value: Any, info: ValidationInfo) -> Any:
        for table in value.values() if isinstance(value, dict) else (value,):
            own = () if info.field_name == "provider" else (table,)
            if any(limits.connections_in_all is not None for limits in (*own, *table.sender.values())):
                raise ValueError("connections_in_all limits all senders at a provider: set it in [provider.NAME]")
        return value

    @cached_property
    def gated_sites(self) -> frozenset[str]:
        """Sites whose table sets a rate or connections, so that they have a gate of their own."""
        return frozenset(name for name, table in self.site.items() if table.needs_gate)

    @cached_property
    def gated_domains(self) -> frozenset[str]:
        """Domains whose table sets a rate or connections, so that they have a gate of their own."""
        return frozenset(name for name, table in self.domain.items() if table.needs_gate)

    def receiver_of(self, provider: str, site: str, domain: str) -> Receiver:
        """Return the receiver of mail to a domain: its provider, or a site or domain that has a gate of its own."""
        return Receiver(
            provider,
            site if site in self.gated_sites else None,
            domain if domain in self.gated_domains else None,
        )

    def gate_receiver(self, receiver: Receiver) -> Receiver:
        """Return the receiver whose gate limits mail to this one.

        Sites and domains without a gate of their own are left out. One without a table in the file is kept, since mail
        may wait at the gate of a table that the file no longer has.
        """
        site, domain = receiver.site, receiver.domain
        return Receiver(
            receiver.provider,
            None if site in self.site and site not in self.gated_sites else site,
            None if domain in self.domain and domain not in self.gated_domains else domain,
        )

    def limits(self, scope: LimitScope) -> ReceiverLimits:
        """Return the limits of one sender at one receiver.

        Later tables override earlier ones: default, provider, site, domain, each followed by its table of the sender.
        """
        return self.limits_with_sources(scope)[0]

    def limits_with_sources(self, scope: LimitScope) -> tuple[ReceiverLimits, dict[str, str]]:
        """Return `limits`, and by name of the limit the table that it comes from."""
        return merge_limits(self._sources(scope))

    def limits_of_gate(self, gate: str, shaped: Collection[str]) -> ReceiverLimits | None:
        """Return the limits of the file for a gate of the queue.

        Domains of no known provider share one gate and have many hosts. The default is a limit for each host, so it
        does not apply to their gate.

        Args:
            gate: Name of the gate.
            shaped: From addresses to which the limits apply.

        Returns:
            The limits. None: the file has none for this gate.
        """
        scope = LimitScope.of_gate(gate)
        if scope is not None:
            shared = scope.rule_provider == OTHER_PROVIDERS and OTHER_PROVIDERS not in self.provider
            return self.limits(scope) if scope.sender in shaped and not shared else None
        match GateName.parse(gate):
            case GateName(kind=GateKind.PROVIDER, receiver=Receiver() as receiver) if str(receiver) in self.provider:
                total = self.provider[str(receiver)].connections_in_all
                return ReceiverLimits(connections=total) if shaped and total is not None else None
            case _:
                return None

    def _sources(self, scope: LimitScope) -> Iterator[LimitSource]:
        yield from _of_table("default", self.default, scope.sender)
        receiver = scope.receiver
        named: tuple[tuple[Level, str | None, Mapping[str, LimitTable]], ...] = (
            ("provider", receiver.provider, self.provider),
            ("site", receiver.site, self.site),
            ("domain", receiver.domain, self.domain),
        )
        for level, name, tables in named:
            if name is not None and name in tables:
                yield from _of_table(f"{level}.{name}", tables[name], scope.sender)


def _of_table(name: str, table: LimitTable, sender: str) -> Iterator[LimitSource]:
    yield LimitSource(table=name, limits=table.own_limits)
    if sender in table.sender:
        yield LimitSource(table=f"{name}.sender.{sender}", limits=table.sender[sender])


def shaped_senders(settings: Settings) -> set[str]:
    """Return the From addresses whose routes meet the limits of mailbox providers, see `RouteSettings.is_shaped`."""
    return {sender.address for sender in settings.senders.values() if settings.routes[sender.route].is_shaped}


def sender_route(settings: Settings, address: str) -> SenderRoute:
    """Return a From address with its route. If two senders have it, the route to which the limits apply."""
    names = [each.route for each in settings.senders.values() if each.address == address]
    return SenderRoute(address, max(names, key=lambda name: settings.routes[name].is_shaped, default=""))


def read_shaping(path: Path | None) -> Shaping:
    """Read the shipped file, overridden by the operator's file.

    Args:
        path: The operator's file. None: only the shipped one.

    Returns:
        The merged file.

    Raises:
        ConfigError: The file cannot be read or has an invalid field. The error has file, line and field.
    """
    shipped = files("postroad.shaping").joinpath("shaping.toml").read_text(encoding="utf-8")
    text = _read(path) if path is not None else ""
    return _validate(shipped, text, path)


def _validate(shipped: str, text: str, path: Path | None) -> Shaping:
    own = _parse(text, path)
    try:
        return Shaping.model_validate(_override(tomllib.loads(shipped), own))
    except ValidationError as error:
        faults = []
        for fault in field_faults(error, Shaping, kind="setting", top="shaping.toml"):
            keys = [str(key) for key in fault.keys]
            in_own = not own or keys[0] in own
            line = line_of_key(text if in_own else shipped, keys)
            faults.append((f"{path if in_own else SHIPPED}, line {line}", str(fault), fault.hint))
        raise combined_error(faults, "docs/reference/shaping.md lists every field.") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "there is no such file", where=str(path), remedy="Correct the setting delivery.shaping, or remove it."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: {error.reason} at byte {error.start}", where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _parse(text: str, path: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(path)) from None


def _override(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Merge tables key by key. The operator's new rules come before the shipped ones."""
    merged = dict(base)
    for key, value in own.items():
        shipped = base.get(key)
        merged[key] = _merge(shipped, value) if isinstance(shipped, dict) and isinstance(value, dict) else value
    rules = merged.get("rule")
    if isinstance(rules, dict):
        shipped_rules = base.get("rule", {})
        merged["rule"] = {name: rules[name] for name in sorted(rules, key=lambda name: name in shipped_rules)}
    return merged


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        current = base.get(key)
        merged[key] = _merge(current, value) if isinstance(current, dict) and isinstance(value, dict) else value
    return merged
