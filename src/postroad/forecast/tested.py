"""Emails whose variants are tested: a part leaves when it is due, and the rest after the decision.

The decision is assumed at the latest time that it has, because who will reach the goal is not predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from postroad.forecast.following import JourneySequel, NextEmail, Sequel
from postroad.store.campaign import Step
from postroad.store.variant import variant_tests
from postroad.store.variant_split import PERCENT, WinnerRule, split_of


class OpenTest(NamedTuple):
    """A test of the variants of a step that is not decided. ``decide_at`` None: it has not begun."""

    step: str
    rule: WinnerRule
    decide_at: datetime | None

    @property
    def note(self) -> str:
        """What a forecast says about it."""
        hours = self.rule.after / timedelta(hours=1)
        at = f"{self.decide_at:%Y-%m-%d %H:%M} UTC" if self.decide_at else f"{hours:g} h after its first message"
        return (
            f"Step {self.step} tests its variants with at most {self.rule.at_most} % of the recipients. The others "
            f"wait for the decision, {at} at the latest; this forecast assumes that time."
        )


def open_tests(connection: sa.Connection, campaign_id: int, steps: Iterable[Step]) -> dict[int, OpenTest]:
    """Return the tests of a campaign that are not decided, by the ids of their steps."""
    begun = variant_tests(connection, campaign_id)
    found = {}
    for step in steps:
        split = split_of(campaign_id, step.name, step.settings)
        if split is None or split.winner is None or step.id is None:
            continue
        test = begun.get(step.id)
        if test is None or test.decided_at is None:
            found[step.id] = OpenTest(step.name, split.winner, test.decide_at if test is not None else None)
    return found


class SplitEmails:
    """The emails of a campaign, of which those with an open test are split. It implements `Following`."""

    def __init__(
        self,
        emails: Sequel | JourneySequel,
        tests: Mapping[int, OpenTest],
        decides: Mapping[int, float] | None = None,
    ) -> None:
        """Set up the emails.

        Args:
            emails: The emails as they follow each other.
            tests: Open tests, by step.
            decides: When tests that had not begun are decided, as far as that is simulated.
        """
        self._emails, self._tests = emails, tests
        self._decides = dict(decides or {})
        for step_id, test in tests.items():
            if test.decide_at is not None:
                self._decides[step_id] = test.decide_at.timestamp()

    @property
    def names(self) -> Mapping[int, str]:
        return self._emails.names

    def copy(self) -> SplitEmails:
        """Return emails that have begun the same tests, for another run of a simulation."""
        return SplitEmails(self._emails, self._tests, self._decides)

    def begin(self, now: float, zones: Iterable[str]) -> None:
        """Begin the tests of the first emails of recipients who enter now: with the first message in any zone."""
        firsts = [email for zone in zones for email in self._emails.first(now, zone)]
        for email in sorted(firsts):
            self._split([email])

    def first(self, now: float, zone: str) -> Sequence[NextEmail]:
        return self._split(self._emails.first(now, zone))

    def after(self, step_id: int, sent: float, due: float, zone: str) -> Sequence[NextEmail]:
        return self._split(self._emails.after(step_id, sent, due, zone))

    def after_wait(self, step_id: int, over: float, zone: str) -> Sequence[NextEmail]:
        """Return the emails after a wait that is over at a time: where an enrolment waits."""
        assert isinstance(self._emails, JourneySequel)  # noqa: S101  (only journeys have enrolments)
        return self._split(self._emails.after_wait(step_id, over, zone))

    def _split(self, emails: Sequence[NextEmail]) -> Sequence[NextEmail]:
        split: list[NextEmail] = []
        for email in emails:
            test = self._tests.get(email.step_id)
            if test is None:
                split.append(email)
                continue
            decides = self._decides.setdefault(email.step_id, email.due + test.rule.after.total_seconds())
            tested = test.rule.at_most / PERCENT if email.due < decides else 1.0
            split.append(email._replace(share=email.share * tested))
            if tested < 1.0:
                split.append(email._replace(due=decides, share=email.share * (1 - tested)))
        return split
