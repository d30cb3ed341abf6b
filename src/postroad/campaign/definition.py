"""Reads campaign.yaml, which defines a campaign and is kept in version control."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from postroad.campaign.approval_field import ApprovalField
from postroad.campaign.calendar import DAYS
from postroad.campaign.conditions import AnyField, ConditionReader
from postroad.campaign.correction import CorrectsField
from postroad.campaign.entry import EntryKind
from postroad.campaign.entry_field import EntryDefinition, EntryField, entry_row, is_api_entry
from postroad.campaign.file_access import ALLOW_IT, FileRefusedError, FileRules
from postroad.campaign.frequency import FrequencyField, require_class
from postroad.campaign.rollout_field import RolloutField
from postroad.campaign.step_rows import StepContent, StepSource, read_text, step_rows
from postroad.campaign.steps import (
    MAX_WAIT_MS,
    NAME_PATTERN,
    EmailStep,
    StepDefinition,
    Strict,
    WaitStep,
    time_of_day,
    walk_steps,
)
from postroad.campaign.yaml_file import TextPlace, line_of, load_yaml, text_place
from postroad.errors import ConfigError
from postroad.field_faults import combined_error, field_faults
from postroad.segment.errors import MAX_CONDITION_CHARACTERS
from postroad.settings import DurationMs, Settings, ZoneName
from postroad.store.campaign import OnReply


class AudienceDefinition(Strict):
    """The audience of the campaign, and the file that its recipients are imported from."""

    name: str = Field(pattern=NAME_PATTERN)
    file: Path | None = None
    where: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CONDITION_CHARACTERS,
        description="condition on its recipients; unset: all",
    )


class WindowDefinition(Strict):
    """The hours in which the campaign may send, in each recipient's time zone."""

    start: Annotated[time, BeforeValidator(time_of_day)] = Field(alias="from")
    end: Annotated[time, BeforeValidator(time_of_day)] = Field(alias="to", description="00:00: midnight")
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        default=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), min_length=1
    )

    @model_validator(mode="after")
    def _is_within_a_day(self) -> Self:
        if self.end != time() and self.end <= self.start:
            raise ValueError("it must end after it begins, on the same day; 00:00 is midnight")
        return self

    def __contains__(self, moment: time) -> bool:
        return self.start <= moment and (self.end == time() or moment < self.end)

    def to_row(self) -> dict[str, Any]:
        """Return the window as the campaign table stores it."""
        days = [day for day in DAYS if day in self.days]
        return {"from": f"{self.start:%H:%M}", "to": f"{self.end:%H:%M}", "days": days}


class OverflowDefinition(Strict):
    """Senders of the messages that exceed the warmup caps of the campaign's sender."""

    senders: tuple[str, ...] = Field(min_length=1, description="in order of preference")
    within: DurationMs = Field(gt=0, le=MAX_WAIT_MS, description="time after which a due email should be sent")


class CampaignDefinition(Strict):
    """The content of a campaign.yaml."""

    name: str = Field(pattern=NAME_PATTERN)
    sender: str
    audience: AudienceDefinition | None = None
    corrects: CorrectsField | None = Field(default=None, description="campaign whose recipients get a correction")
    job_class: Literal["urgent", "normal", "bulk"] = Field(default="bulk", alias="class")
    time_zone: ZoneName | None = Field(default=None, description="of recipients whose time zone is not known")
    window: WindowDefinition | None = Field(default=None, description="hours in which it may send; unset: any")
    on_reply: OnReply = Field(default=OnReply.STOP, description="whether a reply ends the sequence for its writer")
    holidays: bool = Field(default=False, description="no mail on days off and the recipient's public holidays")
    frequency: FrequencyField | None = Field(default=None, description="class of its frequency cap; unset: normal")
    overflow: OverflowDefinition | None = Field(default=None, description="other senders; unset: none")
    transactional: bool = Field(
        default=False, description="with entry: api, requests may be for mail that people must get, such as a receipt"
    )
    approval: ApprovalField | None = Field(default=None, description="which launches need an approval; unset: none")
    rollout: RolloutField | None = Field(default=None, description="shares in which it is let go; unset: at once")
    entry: EntryField = Field(default=EntryDefinition(), description="how recipients enter: launch, joined, …")
    again: DurationMs | None = Field(
        default=None, gt=0, le=MAX_WAIT_MS, description="time after the last entry; unset: a recipient enters once"
    )
    exit: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CONDITION_CHARACTERS,
        description="condition under which a recipient gets nothing more",
    )
    goal: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CONDITION_CHARACTERS,
        description="condition that is counted as success",
    )
    steps: tuple[StepDefinition, ...] = Field(min_length=1)

    @property
    def audience_name(self) -> str:
        """The name of its audience. That of a correction has the campaign's name."""
        return self.audience.name if self.audience is not None else self.name

    @model_validator(mode="before")
    @classmethod
    def _set_urgent_defaults(cls, values: Any) -> Any:
        """Set the defaults of mail that is not to wait: corrections, and messages that a program requests."""
        if not isinstance(values, dict):
            return values
        if values.get("corrects") is not None:
            return {"class": "urgent", "frequency": "ignore", **values}
        if is_api_entry(values.get("entry")):
            # A reply to one message says nothing about the next one.
            own = {"frequency": "ignore"} if values.get("transactional") is True else {}
            return {"class": "urgent", "on_reply": "continue", **own, **values}
        return values

    @model_validator(mode="after")
    def _requested_messages_have_one_step(self) -> Self:
        if not is_api_entry(self.entry):
            if self.transactional:
                raise ValueError("transactional is only for a campaign with entry: api, whose messages are requested")
            return self
        [step, *others] = self.steps
        if others or not isinstance(step, EmailStep) or step.at is not None:
            raise ValueError("entry: api is for one email step without at: each request is one message, sent at once")
        if step.variants:
            raise ValueError("entry: api is for a step without variants: the request has the content of its message")
        if self.exit is not None or self.goal is not None:
            raise ValueError("exit and goal are for recipients who are enrolled. With entry: api none is")
        if self.audience is not None and self.audience.where is not None:
            raise ValueError("audience.where is not used with entry: api: the request names the recipient")
        return self

    @model_validator(mode="after")
    def _has_one_source_of_recipients(self) -> Self:
        if self.corrects is None and self.audience is None:
            raise ValueError("audience: it is missing. A correction has corrects, with the name of a campaign, instead")
        if self.corrects is not None and self.audience is not None:
            raise ValueError("audience and corrects exclude each other: a correction goes to whom the campaign reached")
        if self.corrects is not None and (self.is_journey or self.corrects.campaign == self.name):
            raise ValueError("a correction consists of emails and waits alone, and has a name of its own")
        return self

    @model_validator(mode="after")
    def _again_is_for_an_open_entry(self) -> Self:
        if self.again is not None and self.entry.on.strip().lower() in (EntryKind.LAUNCH, EntryKind.API):
            raise ValueError("again needs an entry after the launch: add entry, such as joined or event('name')")
        return self

    @property
    def window_row(self) -> dict[str, Any] | None:
        """The window and the holidays, as the campaign table stores them. None: it may send at any time."""
        if self.window is None and not self.holidays:
            return None
        any_time = {"from": "00:00", "to": "00:00", "days": list(DAYS)}
        return (self.window.to_row() if self.window else any_time) | ({"holidays": True} if self.holidays else {})

    @property
    def is_journey(self) -> bool:
        """Whether recipients are enrolled. A campaign of emails and waits alone has touches only."""
        plain = all(isinstance(step, EmailStep | WaitStep) for step in self.steps)
        enters_later = self.entry.on.strip().lower() != EntryKind.LAUNCH
        return not plain or enters_later or self.exit is not None or self.goal is not None

    @model_validator(mode="after")
    def _rollout_begins_with_an_email(self) -> Self:
        if self.rollout is None:
            return self
        if self.entry.on.strip().lower() != EntryKind.LAUNCH:
            raise ValueError(
                "rollout needs an audience that the launch freezes, so it is only for entry: launch. Remove rollout: "
                "recipients who enter later do not get their mail at once"
            )
        if self.is_journey and not isinstance(self.steps[0], EmailStep):
            raise ValueError("rollout withholds the first email, so the journey must begin with an email")
        first = next((step for _, step in walk_steps(self.steps) if isinstance(step, EmailStep)), None)
        if first is not None and first.winner is not None:
            raise ValueError(
                f"rollout and the winner of step {first.email} exclude each other: both send the first email to a part "
                "of the audience first"
            )
        return self

    @model_validator(mode="after")
    def _overflow_senders_are_distinct(self) -> Self:
        others = self.overflow.senders if self.overflow is not None else ()
        if self.sender in others or len(set(others)) < len(others):
            raise ValueError("overflow.senders must name each sender once, and not the campaign's sender")
        return self

    @model_validator(mode="after")
    def _times_of_day_are_in_the_window(self) -> Self:
        for _, step in walk_steps(self.steps):
            if isinstance(step, EmailStep) and step.at is not None and self.window and step.at not in self.window:
                raise ValueError(
                    f"step {step.email} has at: {step.at:%H:%M}, when the window is closed. "
                    "Name a time of day within the window, or remove it"
                )
        return self


@dataclass(frozen=True, kw_only=True)
class CampaignFile:
    """A campaign.yaml with the content of all files that it names."""

    path: Path
    definition: CampaignDefinition
    steps: tuple[StepContent, ...]
    journey: dict[str, Any] | None = None
    """Entry, exit and goal of a journey, as the campaign table stores them."""
    where_place: TextPlace | None = None
    """Where the condition on the audience is written."""

    @property
    def audience_file(self) -> Path | None:
        file = self.definition.audience.file if self.definition.audience is not None else None
        return (self.path.parent / file).resolve() if file is not None else None


def read_campaign(path: Path, settings: Settings | None = None, *, folders: tuple[Path, ...] = ()) -> CampaignFile:
    """Read a campaign.yaml and the files that it names.

    Args:
        path: The campaign.yaml.
        settings: They name more folders that its files may be in, and files that must not be read.
        folders: More folders that its files may be in.

    Returns:
        The campaign with its files.

    Raises:
        ConfigError: The file is not valid; the error names file, line and field.
    """
    allowed = (path.parent, *folders)
    if settings is not None:
        rules = FileRules.of(settings, *allowed)
    else:
        rules = FileRules(folders=tuple(folder.resolve() for folder in allowed))
    content = read_text(path, None, where=str(path))
    node, values = load_yaml(path, content)
    if not isinstance(values, dict) or node is None:
        raise ConfigError("the file must be a mapping with name, sender, audience and steps", where=f"{path}, line 1")
    definition = _validate(path, node, values)
    if settings is not None and definition.frequency is not None:
        line = line_of(node, ["frequency", "class"])
        require_class(definition.frequency.name, settings.frequency, where=f"{path}, line {line}, frequency")
    audience_file = definition.audience.file if definition.audience is not None else None
    if audience_file is not None:
        line = line_of(node, ["audience", "file"])
        _require_allowed(path.parent / audience_file, rules, where=f"{path}, line {line}")
    emails = frozenset(step.email for _, step in walk_steps(definition.steps) if isinstance(step, EmailStep))
    fields = AnyField(settings.field_types(definition.audience_name) if settings is not None else {})
    source = StepSource(
        path=path,
        node=node,
        rules=rules,
        conditions=ConditionReader(fields, emails),
        has_goal=definition.goal is not None,
    )
    return CampaignFile(
        path=path,
        definition=definition,
        steps=step_rows(source, definition.steps, journey=definition.is_journey),
        journey=_journey(source, definition) if definition.is_journey else None,
        where_place=text_place(path, content, node, "audience", "where"),
    )


def _journey(source: StepSource, definition: CampaignDefinition) -> dict[str, Any]:
    conditions = {
        name: source.conditions.condition(text, source.where((name,))) if text is not None else None
        for name, text in (("exit", definition.exit), ("goal", definition.goal))
    }
    return {
        "entry": entry_row(definition.entry, definition.again, source.conditions, source.where(("entry",))),
        **conditions,
    }


def _validate(path: Path, node: yaml.Node, values: dict[str, Any]) -> CampaignDefinition:
    """Return the definition, or raise ConfigError with all faults."""
    try:
        return CampaignDefinition.model_validate(values)
    except ValidationError as error:
        faults = field_faults(error, CampaignDefinition, kind="field", top="campaign.yaml")
        raise combined_error(
            [
                (
                    f"{path}, line {line_of(node, fault.keys)}",
                    str(fault) if fault.keys else f"campaign: {fault}",
                    fault.hint,
                )
                for fault in sorted(faults, key=lambda fault: (not fault.unknown, line_of(node, fault.keys)))
            ],
            "docs/reference/campaign-file.md lists every field.",
        ) from None


def _require_allowed(audience_file: Path, rules: FileRules, *, where: str) -> None:
    """Raise ConfigError if the rules do not allow a file, which need not exist yet."""
    try:
        rules.resolve(audience_file)
    except FileRefusedError as error:
        raise ConfigError(str(error), where=f"{where}, audience.file", remedy=ALLOW_IT) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{audience_file} is not a path: {error}", where=f"{where}, audience.file") from None
