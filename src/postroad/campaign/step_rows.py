"""Makes the rows of the step table from the steps of a campaign.yaml, with the content of their files.

The steps are a tree in the file, and rows in reading order in the table. The rows of a journey name the step that
follows, so that no cycle can be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from postroad.campaign.conditions import ConditionReader
from postroad.campaign.file_access import FileRules, read_named
from postroad.campaign.files import read_step_files, require_images
from postroad.campaign.steps import (
    EmailStep,
    IfStep,
    StepDefinition,
    StepKeys,
    WaitStep,
    WaitUntilStep,
    name_of,
    valid_text,
    walk_steps,
)
from postroad.campaign.variant_fields import VariantDefinition
from postroad.campaign.yaml_file import line_of
from postroad.errors import ConfigError
from postroad.field_faults import path_of
from postroad.mail.markup_process import prepare_in_subprocess
from postroad.mail.template import compile_template
from postroad.store.campaign import StepKind
from postroad.store.variant_split import Criterion, content_of

MAX_TEXT_BYTES = 1_000_000
"""Limit of a campaign.yaml, and of each template."""


@dataclass(frozen=True, kw_only=True)
class StepContent:
    """One step as the step table stores it, with the content of its templates."""

    name: str
    kind: StepKind
    settings: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)  # by their digests


@dataclass(frozen=True, kw_only=True)
class StepSource:
    """What the rows are made from: the file as nodes, the rules of its files, and the reader of its conditions.

    ``has_goal``: the campaign has a goal.
    """

    path: Path
    node: yaml.Node
    rules: FileRules
    conditions: ConditionReader
    has_goal: bool = False

    def where(self, keys: StepKeys) -> str:
        """Return the place of a step or of its field, for errors."""
        return f"{self.path}, line {line_of(self.node, keys)}, {path_of(keys)}"


def step_rows(source: StepSource, steps: Sequence[StepDefinition], *, journey: bool) -> tuple[StepContent, ...]:
    """Return the rows of a campaign's steps in reading order.

    Args:
        source: The file.
        steps: Its steps.
        journey: The rows name the steps that follow.

    Returns:
        The rows.

    Raises:
        ConfigError: A name is given twice, no email follows a wait, or a file or condition is not valid.
    """
    names = _names(source, steps)
    following = _following(steps, names)
    _require_email_after_waits(source, steps, names, following)
    rows = []
    for keys, step in walk_steps(steps):
        row = _row(source, keys, step, names[keys])
        ways = following[keys] if journey else {}
        rows.append(StepContent(name=row.name, kind=row.kind, settings={**row.settings, **ways}, files=row.files))
    return tuple(rows)


def _names(source: StepSource, steps: Sequence[StepDefinition]) -> dict[StepKeys, str]:
    names: dict[StepKeys, str] = {}
    for position, (keys, step) in enumerate(walk_steps(steps), start=1):
        name = name_of(step, position)
        if name in names.values():
            raise ConfigError(f"two steps are called {name!r}", where=source.where(keys), remedy="Rename one of them.")
        names[keys] = name
    return names


def _following(
    steps: Sequence[StepDefinition], names: dict[StepKeys, str], keys: StepKeys = ("steps",), after: str | None = None
) -> dict[StepKeys, dict[str, str | None]]:
    """Return the names of the steps that follow each step. ``after``: the step that follows the last one."""
    following: dict[StepKeys, dict[str, str | None]] = {}
    for number, step in enumerate(steps):
        own: StepKeys = (*keys, number)
        follower = names[(*keys, number + 1)] if number + 1 < len(steps) else after
        if isinstance(step, IfStep):
            branches = {"then": step.then, "else": step.otherwise}
            following[own] = {word: names[(*own, word, 0)] if branch else follower for word, branch in branches.items()}
            for word, branch in branches.items():
                following |= _following(branch, names, (*own, word), follower)
        else:
            following[own] = {"next": follower}
    return following


def _require_email_after_waits(
    source: StepSource,
    steps: Sequence[StepDefinition],
    names: dict[StepKeys, str],
    following: dict[StepKeys, dict[str, str | None]],
) -> None:
    reaches_email: dict[str | None, bool] = {None: False}
    walked = list(walk_steps(steps))
    for keys, step in reversed(walked):  # A step that follows is later in reading order.
        leads_on = any(reaches_email[name] for name in following[keys].values())
        reaches_email[names[keys]] = isinstance(step, EmailStep) or leads_on
    for keys, step in walked:
        if not reaches_email[names[keys]]:
            what = "the last step" if keys == ("steps", len(steps) - 1) else f"step {names[keys]}"
            raise ConfigError(
                f"no email follows {what}, which {'chooses' if isinstance(step, IfStep) else 'waits'}",
                where=source.where(keys),
                remedy="Remove it, or add an email after it.",
            )


def _row(source: StepSource, keys: StepKeys, step: StepDefinition, name: str) -> StepContent:
    match step:
        case EmailStep():
            return _email_row(source, keys, step)
        case WaitStep():
            return StepContent(name=name, kind=StepKind.WAIT, settings={"wait_ms": step.wait})
        case WaitUntilStep():
            date = source.conditions.date(step.wait_until, source.where((*keys, "wait_until")))
            return StepContent(name=name, kind=StepKind.WAIT_UNTIL, settings={"wait_until": date})
        case IfStep():
            condition = source.conditions.condition(step.condition, source.where((*keys, "if")))
            return StepContent(name=name, kind=StepKind.IF, settings={"if": condition})


def _email_row(source: StepSource, keys: StepKeys, step: EmailStep) -> StepContent:
    where = source.where(keys)
    compile_template(step.subject, name=f"{where}.subject")
    bodies = _read_bodies(source, where, step)
    files = read_step_files(source.path.parent, source.rules, step.attachments, step.inline, where=where)
    settings: dict[str, Any] = {
        "subject": step.subject,
        "text": bodies["text"],
        "html": bodies["html"],
        "at": step.at.isoformat("minutes") if step.at is not None else None,
        # Steps of versions without MJML do not have the key.
        **({"mjml": bodies["mjml"]} if bodies["mjml"] is not None else {}),
        **files.settings,
        **_variant_settings(source, keys, step),
    }
    names = [variant.name for variant in step.variants]
    for number, name in enumerate(names) if names else [(0, None)]:
        part = f"{where}.variants.{number}" if name is not None else where
        content = content_of(settings, name)
        _, shown = prepare_in_subprocess(
            text=content["text"], html=content["html"], mjml=content.get("mjml"), name=part
        )
        if shown is not None:
            require_images(shown, files.settings, where=f"{where}.inline")
    return StepContent(name=step.email, kind=StepKind.EMAIL, settings=settings, files=files.octets)


def _read_bodies(source: StepSource, where: str, part: EmailStep | VariantDefinition) -> dict[str, str | None]:
    """Return the templates that a step or a variant names, by their kinds."""
    folder, bodies = source.path.parent, dict[str, str | None]()
    for kind, file in (("text", part.text), ("html", part.html), ("mjml", part.mjml)):
        bodies[kind] = content = (
            read_text(folder / file, source.rules, where=f"{where}.{kind}") if file is not None else None
        )
        if content is not None:
            compile_template(content, name=str(folder / str(file)), html=kind != "text")
    return bodies


def _variant_settings(source: StepSource, keys: StepKeys, step: EmailStep) -> dict[str, Any]:
    """Return the variants of a step and its rule of the winner, as the step table stores them; {} without variants."""
    rows: list[dict[str, Any]] = []
    for number, variant in enumerate(step.variants):
        where = source.where((*keys, "variants", number))
        if variant.subject is not None:
            compile_template(variant.subject, name=f"{where}.subject")
        content = {"subject": variant.subject, **_read_bodies(source, where, variant)}
        own = {name: value for name, value in content.items() if value is not None}
        rows.append({"name": variant.name, "share": variant.share, **own})
    if step.winner is None:
        return {"variants": rows} if rows else {}
    if step.winner.by is Criterion.GOAL and not source.has_goal:
        raise ConfigError(
            "the goal decides the winner, and the campaign has none",
            where=source.where((*keys, "winner", "by")),
            remedy="Add goal, as in goal: \"event('paid')\", or write by: replied.",
        )
    decide = step.winner.decide
    winner = {"by": step.winner.by.value, "after_ms": decide.after, "at_most": decide.at_most}
    return {"variants": rows, "winner": winner}


def read_text(path: Path, rules: FileRules | None, *, where: str) -> str:
    """Return the text of a file.

    Args:
        path: The file.
        rules: Rules that it must satisfy; None: it may be any file.
        where: The place that names it, for errors.

    Returns:
        The text, with line ends of Unix.

    Raises:
        ConfigError: It cannot be read, is too long, or is not text in UTF-8.
    """
    content = read_named(path, rules, MAX_TEXT_BYTES, where=where)
    if len(content) > MAX_TEXT_BYTES:
        raise ConfigError(f"{path} has more than {MAX_TEXT_BYTES:,} bytes", where=where)
    try:
        # Some editors begin a file with a byte order mark.
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}", where=where) from None
    try:
        return valid_text(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not text: {error}", where=where) from None
