"""The steps of a journey as a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_never

from postroad.campaign.calendar import Window
from postroad.campaign.sequence import EmailPlan, email_plan
from postroad.segment.tree import RecipientCondition, RecipientDate, date_from_json, from_json
from postroad.store.campaign import Step, StepKind


@dataclass(frozen=True, kw_only=True)
class EmailNode:
    """Send an email. ``plan``: when it is due, without the waits before it."""

    step_id: int
    plan: EmailPlan
    next_id: int | None


@dataclass(frozen=True, kw_only=True)
class WaitNode:
    """Wait. ``wait``: with the waits that follow directly. ``email``: the email that follows, if one does."""

    step_id: int
    wait: timedelta
    email: EmailNode | None
    next_id: int | None


@dataclass(frozen=True, kw_only=True)
class UntilNode:
    """Wait until a date of the recipient. ``email``: as in `WaitNode`."""

    step_id: int
    date: RecipientDate
    email: EmailNode | None
    next_id: int | None


@dataclass(frozen=True, kw_only=True)
class BranchNode:
    """Choose the next step by a condition."""

    step_id: int
    condition: RecipientCondition
    then_id: int | None
    else_id: int | None


StepNode = EmailNode | WaitNode | UntilNode | BranchNode


def step_nodes(steps: Sequence[Step], window: Window | None) -> dict[int, StepNode]:
    """Return the nodes by the ids of their steps, in reading order."""
    ids = {step.name: step.id for step in steps}
    nodes: dict[int, StepNode] = {}

    def node_at(settings: Mapping[str, Any], word: str) -> int | None:
        return ids[settings[word]] if settings[word] is not None else None

    for step in reversed(steps):  # The steps that follow one are later in the list.
        assert step.id is not None  # noqa: S101  (read from its table)
        settings = step.settings
        if step.kind is StepKind.IF:
            nodes[step.id] = BranchNode(
                step_id=step.id,
                condition=from_json(settings["if"]),
                then_id=node_at(settings, "then"),
                else_id=node_at(settings, "else"),
            )
            continue
        next_id = node_at(settings, "next")
        follower = nodes.get(next_id) if next_id is not None else None
        email = follower if isinstance(follower, EmailNode) else None
        match step.kind:
            case StepKind.EMAIL:
                nodes[step.id] = EmailNode(step_id=step.id, plan=email_plan(step, window), next_id=next_id)
            case StepKind.WAIT:
                wait = timedelta(milliseconds=settings["wait_ms"])
                if isinstance(follower, WaitNode):  # Consecutive waits are added.
                    wait, email, next_id = wait + follower.wait, follower.email, follower.next_id
                nodes[step.id] = WaitNode(step_id=step.id, wait=wait, email=email, next_id=next_id)
            case StepKind.WAIT_UNTIL:
                date = date_from_json(settings["wait_until"])
                nodes[step.id] = UntilNode(step_id=step.id, date=date, email=email, next_id=next_id)
            case _:
                assert_never(step.kind)
    return dict(reversed(nodes.items()))
