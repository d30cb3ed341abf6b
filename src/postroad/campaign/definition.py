"""Reads campaign.yaml, which defines a campaign and is kept in version control."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from postroad.campaign.calendar import DAYS
from postroad.campaign.file_access import ALLOW_IT, FileRefusedError, FileRules, read_named
from postroad.campaign.files import Attachments, Inlines, read_step_files, require_images
from postroad.campaign.frequency import FrequencyField, require_class
from postroad.campaign.yaml_file import load_yaml
from postroad.errors import ConfigError
from postroad.field_faults import combined_error, field_faults
from postroad.mail.markup_process import prepare_in_subprocess
from postroad.mail.template import compile_template
from postroad.settings import DurationMs, Settings, ZoneName
from postroad.store.campaign import OnReply

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""Pattern of names, which are also artifact keys, metric labels and parts of file names."""

MAX_TEXT_BYTES = 1_000_000
"""Limit of a campaign.yaml, and of each template."""

MAX_WAIT_MS = 10 * 366 * 86_400_000


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("it contains a NUL character, which no message can contain")
    return value


def _time_of_day(value: object) -> time | None:
    if value is None:
        return None
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError("it is not a time of day: write hours and minutes, as in 09:30")
    return time(int(match[1]), int(match[2]))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EmailStep(_Strict):
    """Send one message to each recipient who is still in the sequence."""

    email: str = Field(pattern=NAME_PATTERN, description="the step's name")
    subject: Annotated[str, AfterValidator(_text)] = Field(min_length=1)
    text: Path | None = None
    html: Path | None = None
    mjml: Path | None = None
    attachments: Attachments = ()
    inline: Inlines = ()
    at: Annotated[time | None, BeforeValidator(_time_of_day)] = Field(
        default=None, description="time of day in the recipient's own zone; unset: at once"
    )

    @model_validator(mode="after")
    def _has_one_body(self) -> Self:
        if self.text is None and self.html is None and self.mjml is None:
            raise ValueError("it needs text, html or mjml")
        if self.html is not None and self.mjml is not None:
            raise ValueError("html and mjml exclude each other: name one of them")
        if self.inline and self.html is None and self.mjml is None:
            raise ValueError("inline images are for html or mjml")
        return self


class WaitStep(_Strict):
    """Wait after the previous step."""

    wait: DurationMs = Field(gt=0, le=MAX_WAIT_MS)


def _kind(value: Any) -> Literal["wait", "email"]:
    return "wait" if isinstance(value, dict) and "wait" in value else "email"


StepDefinition = Annotated[Annotated[EmailStep, Tag("email")] | Annotated[WaitStep, Tag("wait")], Discriminator(_kind)]


class AudienceDefinition(_Strict):
    """The audience of the campaign, and the file that its recipients are imported from."""

    name: str = Field(pattern=NAME_PATTERN)
    file: Path | None = None


class WindowDefinition(_Strict):
    """The hours in which the campaign may send, in each recipient's time zone."""

    start: Annotated[time, BeforeValidator(_time_of_day)] = Field(alias="from")
    end: Annotated[time, BeforeValidator(_time_of_day)] = Field(alias="to", description="00:00: midnight")
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


class OverflowDefinition(_Strict):
    """Senders of the messages that exceed the warmup caps of the campaign's sender."""

    senders: tuple[str, ...] = Field(min_length=1, description="in order of preference")
    within: DurationMs = Field(gt=0, le=MAX_WAIT_MS, description="time after which a due email should be sent")


class CampaignDefinition(_Strict):
    """The content of a campaign.yaml."""

    name: str = Field(pattern=NAME_PATTERN)
    sender: str
    audience: AudienceDefinition
    job_class: Literal["urgent", "normal", "bulk"] = Field(default="bulk", alias="class")
    time_zone: ZoneName | None = Field(default=None, description="of recipients whose time zone is not known")
    window: WindowDefinition | None = Field(default=None, description="hours in which it may send; unset: any")
    on_reply: OnReply = Field(default=OnReply.STOP, description="whether a reply ends the sequence for its writer")
    holidays: bool = Field(default=False, description="no mail on days off and the recipient's public holidays")
    frequency: FrequencyField | None = Field(default=None, description="class of its frequency cap; unset: normal")
    overflow: OverflowDefinition | None = Field(default=None, description="other senders; unset: none")
    steps: tuple[StepDefinition, ...] = Field(min_length=1)

    @property
    def window_row(self) -> dict[str, Any] | None:
        """The window and the holidays, as the campaign table stores them. None: it may send at any time."""
        if self.window is None and not self.holidays:
            return None
        any_time = {"from": "00:00", "to": "00:00", "days": list(DAYS)}
        return (self.window.to_row() if self.window else any_time) | ({"holidays": True} if self.holidays else {})

    @model_validator(mode="after")
    def _overflow_senders_are_distinct(self) -> Self:
        others = self.overflow.senders if self.overflow is not None else ()
        if self.sender in others or len(set(others)) < len(others):
            raise ValueError("overflow.senders must name each sender once, and not the campaign's sender")
        return self

    @model_validator(mode="after")
    def _times_of_day_are_in_the_window(self) -> Self:
        for step in self.steps:
            if isinstance(step, EmailStep) and step.at is not None and self.window and step.at not in self.window:
                raise ValueError(
                    f"step {step.email} has at: {step.at:%H:%M}, when the window is closed. "
                    "Name a time of day within the window, or remove it"
                )
        return self


@dataclass(frozen=True, kw_only=True)
class StepContent:
    """One step as the step table stores it, with the content of its templates."""

    name: str
    kind: Literal["email", "wait"]
    settings: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)  # by their digests


@dataclass(frozen=True, kw_only=True)
class CampaignFile:
    """A campaign.yaml with the content of all files that it names."""

    path: Path
    definition: CampaignDefinition
    steps: tuple[StepContent, ...]

    @property
    def audience_file(self) -> Path | None:
        file = self.definition.audience.file
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
    node, values = load_yaml(path, _read(path, None, where=str(path)))
    if not isinstance(values, dict) or node is None:
        raise ConfigError("the file must be a mapping with name, sender, audience and steps", where=f"{path}, line 1")
    definition = _validate(path, node, values)
    if settings is not None and definition.frequency is not None:
        line = _line_of(node, ["frequency", "class"])
        require_class(definition.frequency.name, settings.frequency, where=f"{path}, line {line}, frequency")
    audience_file = definition.audience.file
    if audience_file is not None:
        line = _line_of(node, ["audience", "file"])
        _require_allowed(path.parent / audience_file, rules, where=f"{path}, line {line}")
    return CampaignFile(path=path, definition=definition, steps=_steps(path, node, definition, rules))


def _validate(path: Path, node: yaml.Node, values: dict[str, Any]) -> CampaignDefinition:
    """Return the definition, or raise ConfigError with all faults."""
    try:
        return CampaignDefinition.model_validate(values)
    except ValidationError as error:
        faults = field_faults(error, CampaignDefinition, kind="field", top="campaign.yaml")
        raise combined_error(
            [
                (
                    f"{path}, line {_line_of(node, fault.keys)}",
                    str(fault) if fault.keys else f"campaign: {fault}",
                    fault.hint,
                )
                for fault in sorted(faults, key=lambda fault: (not fault.unknown, _line_of(node, fault.keys)))
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


def _steps(path: Path, node: yaml.Node, definition: CampaignDefinition, rules: FileRules) -> tuple[StepContent, ...]:
    steps: list[StepContent] = []
    for number, step in enumerate(definition.steps):
        if isinstance(step, WaitStep):
            steps.append(StepContent(name=f"wait-{number + 1}", kind="wait", settings={"wait_ms": step.wait}))
            continue
        where = f"{path}, line {_line_of(node, ['steps', number])}, steps.{number}"
        if step.email in (known.name for known in steps):
            raise ConfigError(f"two steps are called {step.email!r}", where=where)
        steps.append(_email_step(path, step, rules, where))
    if definition.steps and isinstance(definition.steps[-1], WaitStep):
        where = f"{path}, line {_line_of(node, ['steps', len(definition.steps) - 1])}"
        raise ConfigError(
            "no email follows the last step, which waits", where=where, remedy="Remove it, or add an email after it."
        )
    return tuple(steps)


def _email_step(path: Path, step: EmailStep, rules: FileRules, where: str) -> StepContent:
    text, html, mjml = (
        _read(path.parent / file, rules, where=f"{where}.{kind}") if file is not None else None
        for kind, file in (("text", step.text), ("html", step.html), ("mjml", step.mjml))
    )
    compile_template(step.subject, name=f"{where}.subject")
    for file, source in ((step.text, text), (step.html, html), (step.mjml, mjml)):
        if file is not None and source is not None:
            compile_template(source, name=str(path.parent / file), html=file != step.text)
    files = read_step_files(path.parent, rules, step.attachments, step.inline, where=where)
    settings: dict[str, Any] = {
        "subject": step.subject,
        "text": text,
        "html": html,
        "at": step.at.isoformat("minutes") if step.at is not None else None,
        **({"mjml": mjml} if mjml is not None else {}),  # Steps of versions without MJML do not have the key.
        **files.settings,
    }
    _, shown = prepare_in_subprocess(text=text, html=html, mjml=mjml, name=where)
    if shown is not None:
        require_images(shown, files.settings, where=f"{where}.inline")
    return StepContent(name=step.email, kind="email", settings=settings, files=files.octets)


def _read(path: Path, rules: FileRules | None, *, where: str) -> str:
    content = read_named(path, rules, MAX_TEXT_BYTES, where=where)
    if len(content) > MAX_TEXT_BYTES:
        raise ConfigError(f"{path} has more than {MAX_TEXT_BYTES:,} bytes", where=where)
    try:
        # Some editors begin a file with a byte order mark.
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}", where=where) from None
    try:
        return _text(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not text: {error}", where=where) from None


def _line_of(node: yaml.Node, loc: Sequence[Any]) -> int:
    """Return the line of a field's name, or, if the field is missing, the line of its parent."""
    line = int(node.start_mark.line)
    for part in loc:
        children: list[tuple[Any, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            children = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(number, value, value) for number, value in enumerate(node.value)]
        for name, key, value in children:
            if name == part:
                node, line = value, int(key.start_mark.line)
                break
        else:
            return int(node.start_mark.line) + 1
    return line + 1
