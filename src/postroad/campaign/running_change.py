"""Decides which changes of the steps of a running campaign hurt no recipient. Pure.

The content of an email may change until a recipient got it. New steps may follow the last one. The rest of a step may
change while no recipient is in it and none has passed it. All other changes are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from postroad.campaign.step_rows import StepContent
from postroad.printable import counted
from postroad.store.campaign import Step, StepKind
from postroad.store.enrolment import StepEnrolments
from postroad.store.ledger import LIVE, SENT_OR_SKIPPED, TouchState

GOT: Final = (TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.SENDING, TouchState.UNKNOWN)
"""States of touches whose recipients got the email, or may have got it."""

_WAYS: Final = ("next", "then", "else")
"""Settings that name the steps that follow."""


class HurtError(Exception):
    """A change that would hurt people. Its text says which step cannot change, and how many people are in it."""


@dataclass(frozen=True, kw_only=True)
class StepPeople:
    """People of one step. ``here``: they are in it; ``passed``: they passed it, or ended there; ``got``: its email."""

    here: int = 0
    passed: int = 0
    got: int = 0

    @property
    def any(self) -> bool:
        return bool(self.here or self.passed)


@dataclass(frozen=True, kw_only=True)
class StepChanges:
    """The changes of a campaign's steps.

    ``settings``: new settings by step. ``content``: those of them with new content, which get a new version. ``added``:
    steps after the last one.
    """

    settings: Mapping[int, dict[str, Any]]
    content: frozenset[int]
    added: tuple[StepContent, ...]

    def __bool__(self) -> bool:
        return bool(self.settings or self.added)


def find_changes(steps: Sequence[Step], wanted: Sequence[StepContent], people: Mapping[int, StepPeople]) -> StepChanges:
    """Return the changes from the stored steps to those of a file.

    Args:
        steps: The stored steps, in order.
        wanted: The steps of the file, in order.
        people: The people of each step, by id.

    Returns:
        The changes.

    Raises:
        HurtError: A change would hurt people.
    """
    _require_same_order(steps, wanted, people)
    settings: dict[int, dict[str, Any]] = {}
    content: set[int] = set()
    added = {step.name for step in wanted[len(steps) :]}
    for step, new in zip(steps, wanted, strict=False):
        id_ = step.id or 0
        if step.settings == new.settings:
            continue
        changed = {
            key for key in step.settings.keys() | new.settings if step.settings.get(key) != new.settings.get(key)
        }
        ways = {key for key in changed if step.settings.get(key) is None and new.settings.get(key) in added}
        ways &= set(_WAYS)
        written = changed - set(_WAYS) - _planned(step, new) if step.kind is StepKind.EMAIL else set()
        if written and people[id_].got:
            got = counted(people[id_].got, "person has", "people have")
            _refuse(f"the content of step {step.name!r} cannot change: {got} got it")
        if changed - ways - written and people[id_].any:
            what = ", ".join(sorted(changed - ways - written))
            _refuse(f"{what} of step {step.name!r} cannot change: {_count(step, people)}")
        settings[id_] = new.settings
        if changed - set(_WAYS):
            content.add(id_)
    return StepChanges(settings=settings, content=frozenset(content), added=tuple(wanted[len(steps) :]))


def _planned(step: Step, new: StepContent) -> set[str]:
    """Return the settings of an email that its planned touches depend on, apart from its content."""
    same_split = _split(step.settings) == _split(new.settings)
    return {"at", "winner"} if same_split else {"at", "winner", "variants"}


def _split(settings: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(variant["name"], variant["share"]) for variant in settings.get("variants", ())]


def _require_same_order(steps: Sequence[Step], wanted: Sequence[StepContent], people: Mapping[int, StepPeople]) -> None:
    names = {step.name for step in wanted}
    for step in steps:
        if step.name not in names:
            _refuse(f"step {step.name!r} cannot be removed: {_count(step, people)}")
    known = {step.name for step in steps}
    for step, new in zip(steps, wanted, strict=False):
        if new.name not in known:
            what = f"the new step {new.name!r} comes before step {step.name!r}, but new steps follow the last one"
            _refuse(f"{what}, {steps[-1].name!r}: {_count(step, people)}")
        if new.name != step.name:
            _refuse(f"the order cannot change: {new.name!r} is before {step.name!r}, and {_count(step, people)}")
        if new.kind is not step.kind:
            _refuse(f"step {step.name!r} cannot become {new.kind.value}: {_count(step, people)}")


def _count(step: Step, people: Mapping[int, StepPeople]) -> str:
    found = people[step.id or 0]
    passed = f", and {counted(found.passed, 'has', 'have')} passed it" if found.passed else ""
    return f"step {step.name!r} has {counted(found.here, 'person', 'people')} in it{passed}"


def _refuse(what: str) -> NoReturn:
    raise HurtError(what)


def people_of_emails(steps: Sequence[Step], counts: Mapping[int, Mapping[TouchState, int]]) -> dict[int, StepPeople]:
    """Return the people of each step of a campaign without enrolments. ``counts``: touches by step and state."""
    people: dict[int, StepPeople] = {}
    left = 0  # who may continue from the email before
    for position, step in enumerate(steps):
        touches = counts.get(step.id or 0, {})
        if step.kind is StepKind.EMAIL:
            here = sum(touches.get(state, 0) for state in LIVE)
            people[step.id or 0] = StepPeople(here=here, passed=sum(touches.values()) - here, got=_got(touches))
            left = sum(touches.get(state, 0) for state in SENT_OR_SKIPPED)
            continue
        later = next((one for one in steps[position:] if one.kind is StepKind.EMAIL), None)
        gone = sum(counts.get(later.id or 0, {}).values()) if later is not None else 0
        people[step.id or 0] = StepPeople(here=max(left - gone, 0), passed=min(left, gone))
    return people


def people_of_journey(
    steps: Sequence[Step],
    enrolments: Mapping[int, StepEnrolments],
    counts: Mapping[int, Mapping[TouchState, int]],
) -> dict[int, StepPeople]:
    """Return the people of each step of a journey. Who is at a step that follows, on any way, may have passed it."""
    ids = {step.name: step.id or 0 for step in steps}
    none = StepEnrolments()
    after: dict[int, set[int]] = {}
    people: dict[int, StepPeople] = {}
    for step in reversed(steps):  # A step that follows is later in this order.
        id_ = step.id or 0
        followers = {ids[name] for word in _WAYS if (name := step.settings.get(word)) is not None}
        after[id_] = followers.union(*(after[follower] for follower in followers))
        own = enrolments.get(id_, none)
        passed = own.total - own.active + sum(enrolments.get(later, none).total for later in after[id_])
        people[id_] = StepPeople(here=own.active, passed=passed, got=_got(counts.get(id_, {})))
    return people


def _got(touches: Mapping[TouchState, int]) -> int:
    return sum(touches.get(state, 0) for state in GOT)
