"""campaign.yaml: a campaign as a file that its owner keeps in version control."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from postroad.errors import ConfigError
from postroad.settings import DurationMs, ZoneName

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""A name that is also the key of an artifact, a label of a metric, and part of a file name."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EmailStep(_Strict):
    """Send one message to each recipient who is still in the sequence."""

    email: str = Field(pattern=NAME_PATTERN, description="the step's name")
    subject: str = Field(min_length=1)
    text: Path
    html: Path | None = None
    at: time | None = Field(default=None, description="time of day in the recipient's own zone; unset: at once")


class WaitStep(_Strict):
    """Let time pass after the step before."""

    wait: DurationMs = Field(gt=0)


def _kind(value: Any) -> Literal["wait", "email"]:
    return "wait" if isinstance(value, dict) and "wait" in value else "email"


StepDefinition = Annotated[Annotated[EmailStep, Tag("email")] | Annotated[WaitStep, Tag("wait")], Discriminator(_kind)]


class AudienceDefinition(_Strict):
    """Who it is for, and the file that fills the audience."""

    name: str = Field(pattern=NAME_PATTERN)
    file: Path | None = None


class CampaignDefinition(_Strict):
    """All of a campaign.yaml."""

    name: str = Field(pattern=NAME_PATTERN)
    sender: str
    audience: AudienceDefinition
    job_class: Literal["urgent", "normal", "bulk"] = Field(default="bulk", alias="class")
    time_zone: ZoneName | None = Field(default=None, description="of recipients whose own is not known")
    steps: tuple[StepDefinition, ...] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)
class StepContent:
    """One step, with the templates that its files held: what is kept in the step table."""

    name: str
    kind: Literal["email", "wait"]
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CampaignFile:
    """A campaign.yaml, read with all the files it names."""

    path: Path
    definition: CampaignDefinition
    steps: tuple[StepContent, ...]

    @property
    def audience_file(self) -> Path | None:
        file = self.definition.audience.file
        return (self.path.parent / file).resolve() if file is not None else None


def read_campaign(path: Path) -> CampaignFile:
    """Read a campaign.yaml and its templates. Raises ConfigError with file, line and field."""
    text = _read(path, where=str(path))
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"not YAML: {getattr(error, 'problem', error)}", where=f"{path}{line}") from None
    if not isinstance(values, dict) or node is None:
        raise ConfigError("it must be a mapping with name, sender, audience and steps", where=f"{path}, line 1")
    try:
        definition = CampaignDefinition.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        loc = [part for part in first["loc"] if part not in ("email", "wait") or part == first["loc"][-1]]
        field = ".".join(str(part) for part in loc)
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{field or 'campaign'}: {message}",
            where=f"{path}, line {_line_of(node, loc)}",
            remedy="docs/reference/campaign-file.md lists every field.",
        ) from None
    return CampaignFile(path=path, definition=definition, steps=_steps(path, node, definition))


def _steps(path: Path, node: yaml.Node, definition: CampaignDefinition) -> tuple[StepContent, ...]:
    steps: list[StepContent] = []
    for number, step in enumerate(definition.steps):
        if isinstance(step, WaitStep):
            steps.append(StepContent(name=f"wait-{number + 1}", kind="wait", settings={"wait_ms": step.wait}))
            continue
        where = f"{path}, line {_line_of(node, ['steps', number])}, steps.{number}"
        if step.email in (known.name for known in steps):
            raise ConfigError(f"two steps are called {step.email!r}", where=where)
        html = _read(path.parent / step.html, where=f"{where}.html") if step.html is not None else None
        settings = {
            "subject": step.subject,
            "text": _read(path.parent / step.text, where=f"{where}.text"),
            "html": html,
            "at": step.at.isoformat("minutes") if step.at is not None else None,
        }
        steps.append(StepContent(name=step.email, kind="email", settings=settings))
    if definition.steps and isinstance(definition.steps[-1], WaitStep):
        where = f"{path}, line {_line_of(node, ['steps', len(definition.steps) - 1])}"
        raise ConfigError("the last step waits for nothing", where=where, remedy="Remove it, or add an email after it.")
    return tuple(steps)


def _read(path: Path, *, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path}", where=where, remedy="Paths are relative to campaign.yaml."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}", where=where) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", where=where) from None


def _line_of(node: yaml.Node, loc: list[Any]) -> int:
    """Line of the deepest node on the way to a field that is there."""
    for part in loc:
        children: list[tuple[Any, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            children = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(number, value, value) for number, value in enumerate(node.value)]
        for name, _, value in children:
            if name == part:
                node = value
                break
        else:
            break
    return int(node.start_mark.line) + 1
