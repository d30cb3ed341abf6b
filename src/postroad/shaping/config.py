"""shaping.toml: what is shipped, and what an operator lays over it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from postroad.dns.providers import MAX_SITE
from postroad.errors import ConfigError
from postroad.field_faults import field_faults, listed
from postroad.gates.name import GateKind, GateName, Receiver
from postroad.settings import Settings, line_of_key
from postroad.shaping.limits import TAIL, Level, LimitScope, LimitSource, LimitTable, ReceiverLimits, resolve
from postroad.shaping.rules import PACE, Condition, Pattern, ShapingRule
from postroad.smtp.reply import Reply

SHIPPED = "shaping.toml of the package"
MAX_COLUMN = 100
"""Of the names of rules and providers: the store has no room for more."""


class AdaptiveRate(Condition):
    """Which refusals mean: slower. ``unless``: words that speak of a recipient, or of something else."""

    unless: Pattern | None = Field(default=None, alias="except")

    @cached_property
    def _unless(self) -> re.Pattern[str] | None:
        return re.compile(self.unless, re.IGNORECASE) if self.unless is not None else None

    def holds(self, reply: Reply) -> bool:
        """Whether a receiver says that we were too fast."""
        return super().holds(reply) and (self._unless is None or self._unless.search(reply.text) is None)


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
    def _is_no_other_name(cls, rules: dict[str, ShapingRule]) -> dict[str, ShapingRule]:
        if PACE in rules:
            raise ValueError(f"{PACE!r} is the pace's name, so no rule can have it")
        return rules

    @field_validator("rule", "provider")
    @classmethod
    def _fits_its_column(cls, tables: dict[str, Any]) -> dict[str, Any]:
        for name in tables:
            if not 0 < len(name) <= MAX_COLUMN:
                raise ValueError(f"{name!r} has {len(name)} characters: give it a name of 1 to {MAX_COLUMN}")
        return tables

    @field_validator("site", "domain")
    @classmethod
    def _can_name_a_gate(cls, tables: dict[str, LimitTable]) -> dict[str, LimitTable]:
        for name in tables:
            if name != name.lower() or re.search(r"[\s/:]", name) or not 0 < len(name) <= MAX_SITE:
                raise ValueError(f"{name!r} names no site or domain: write it in lower case, as `postroad` shows it")
        return tables

    @field_validator("default", "site", "domain", "provider")
    @classmethod
    def _only_a_provider_has_all(cls, value: Any, info: ValidationInfo) -> Any:
        for table in value.values() if isinstance(value, dict) else (value,):
            beside = () if info.field_name == "provider" else (table,)
            if any(each.connections_in_all is not None for each in (*beside, *table.sender.values())):
                raise ValueError("connections_in_all is of all senders at a provider: it stands in [provider.NAME]")
        return value

    @cached_property
    def paced_sites(self) -> frozenset[str]:
        """Sites whose table sets a pace of its own."""
        return frozenset(name for name, table in self.site.items() if table.sets_pace)

    @cached_property
    def paced_domains(self) -> frozenset[str]:
        """Domains whose table sets a pace of its own."""
        return frozenset(name for name, table in self.domain.items() if table.sets_pace)

    def receiver_of(self, provider: str, site: str, domain: str) -> Receiver:
        """Return the receiver of mail to a domain: its provider, or a site or domain that has a gate of its own."""
        return Receiver(
            provider,
            site if site in self.paced_sites else None,
            domain if domain in self.paced_domains else None,
        )

    def gated(self, receiver: Receiver) -> Receiver:
        """Return the receiver whose gate holds mail to this one: without the tables that set no pace.

        A table that the file does not have is kept, as mail may wait behind a gate that it once made.
        """
        site, domain = receiver.site, receiver.domain
        return Receiver(
            receiver.provider,
            None if site in self.site and site not in self.paced_sites else site,
            None if domain in self.domain and domain not in self.paced_domains else domain,
        )

    def limits(self, scope: LimitScope) -> ReceiverLimits:
        """Return what holds for one sender at one receiver: default < provider < site < domain, each < its sender."""
        return self.explained(scope)[0]

    def explained(self, scope: LimitScope) -> tuple[ReceiverLimits, dict[str, str]]:
        """`limits`, and the table that each comes from."""
        return resolve(self._sources(scope))

    def limits_of_gate(self, gate: str, shaped: Collection[str]) -> ReceiverLimits | None:
        """Return the limits of the file for a gate of the queue; None: it sets none there. ``shaped``: for whom it may.

        The tail of unknown domains is one gate and many hosts: the default, which is for each host, is none of it.
        """
        scope = LimitScope.of_gate(gate)
        if scope is not None:
            tail = scope.known_as == TAIL and TAIL not in self.provider
            return self.limits(scope) if scope.sender in shaped and not tail else None
        match GateName.parse(gate):
            case GateName(kind=GateKind.PROVIDER, receiver=Receiver() as receiver) if str(receiver) in self.provider:
                in_all = self.provider[str(receiver)].connections_in_all
                return ReceiverLimits(connections=in_all) if shaped and in_all is not None else None
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
    yield LimitSource(table=name, limits=table.alone)
    if sender in table.sender:
        yield LimitSource(table=f"{name}.sender.{sender}", limits=table.sender[sender])


def shaped_senders(settings: Settings) -> set[str]:
    """From addresses whose mail goes to mailbox providers without a relay between: for them the limits hold."""
    return {sender.address for sender in settings.senders.values() if settings.routes[sender.route].is_shaped}


def read_shaping(path: Path | None) -> Shaping:
    """Read what is shipped, and the operator's file over it. Raises ConfigError with file, line and field."""
    shipped = files("postroad.shaping").joinpath("shaping.toml").read_text(encoding="utf-8")
    text = _read(path) if path is not None else ""
    own = _parse(text, path)
    try:
        return Shaping.model_validate(_over(tomllib.loads(shipped), own))
    except ValidationError as error:
        faults = []
        for fault in field_faults(error, Shaping, kind="setting", top="shaping.toml"):
            keys = [str(key) for key in fault.keys]
            in_own = not own or keys[0] in own
            line = line_of_key(text if in_own else shipped, keys)
            faults.append((f"{path if in_own else SHIPPED}, line {line}", str(fault), fault.hint))
        raise listed(faults, "docs/reference/shaping.md lists every field.") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "there is no such file", where=str(path), remedy="Mend the setting delivery.shaping, or remove it."
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


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Lay tables over each other, key by key. An operator's new rules come before those that are shipped."""
    merged = dict(base)
    for key, value in own.items():
        below = base.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    rules = merged.get("rule")
    if isinstance(rules, dict):
        shipped = base.get("rule", {})
        merged["rule"] = {name: rules[name] for name in sorted(rules, key=lambda name: name in shipped)}
    return merged


def _merged(below: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, item in value.items():
        under = below.get(key)
        result[key] = _merged(under, item) if isinstance(under, dict) and isinstance(item, dict) else item
    return result
