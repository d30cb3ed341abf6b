"""Tries renderings of a step before the launch: one for each set of values that can make a rendering fail.

A template fails for a recipient because a merge field is missing, because of its value, or because the values are too
long. For fields that are only shown, only their presence matters: one rendering with long values covers all recipients
who have the same fields. For fields that the template evaluates, the value matters. So every recipient is examined,
but few are rendered. A recipient with a very long value is rendered individually.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from postroad.campaign.segment import Segment
from postroad.errors import DataError
from postroad.mail.message import CompiledMessage
from postroad.mail.template import RESERVED
from postroad.store.bulk import any_of
from postroad.store.engine import read

MAX_SHOWN: Final = 250
"""Longest value, in characters, that a rendering with long values covers."""
# No text grows more by a filter or by escaping: a quote becomes five characters in HTML.
_LONG: Final = '"' * 4 * MAX_SHOWN
_PAGE: Final = 2_000
_MAX_KNOWN: Final = 200_000  # cached sets of values of each step
_MAX_FAULTS: Final = 20
_MAX_EXAMPLES: Final = 3
_INDIVIDUAL: Final = object()
Sample = tuple[str, Mapping[str, Any]]
"""Address and attributes of a recipient."""
SAMPLES: Final = 10
"""How many of the first recipients, and of those with different sets of values, are examined after the trial."""


@dataclass(kw_only=True)
class RenderingFault:
    """One rendering error of a step, with the number of affected recipients and some of their addresses."""

    what: str
    recipients: int = 0
    examples: list[str] = field(default_factory=list)


class StepTrial:
    """Renders a step for recipients of an audience, and collects the errors."""

    def __init__(self, messages: Sequence[CompiledMessage]) -> None:
        """Prepare a trial.

        Args:
            messages: The step's message for each of its senders, the campaign's sender first.
        """
        by_value = messages[0].value_fields
        sender_fields = {"sender_name", "postal_address"}
        self._messages = messages if by_value & sender_fields else messages[:1]
        self._fields = [(name, name in by_value) for name in sorted(messages[0].fields - RESERVED)]
        self._address_by_value = "address" in by_value
        self._reserved = messages[0].fields & RESERVED
        self.name = messages[0].name
        self.shadowed: Counter[str] = Counter()  # recipients with a column named like a reserved field
        self.rendered = 0  # recipients without an error
        self.missing: Counter[str] = Counter()  # those of them without a field
        self._largest: Sample | None = None
        self._first: list[Sample] = []
        self._distinct: list[Sample] = []
        self._longest = -1
        self._known: dict[int, Any] = {}  # outcomes by hash of the set of values
        self._faults: dict[str, RenderingFault] = {}

    @property
    def faults(self) -> list[RenderingFault]:
        return list(self._faults.values())

    def try_recipient(self, address: str, attributes: Mapping[str, Any]) -> None:
        """Record whether the step can be rendered for a recipient."""
        self.shadowed.update(self._reserved & attributes.keys())
        problem = self._outcome(address, attributes)
        if problem is None:
            self._examine(address, attributes)
            return
        if problem not in self._faults and len(self._faults) >= _MAX_FAULTS:
            problem = "its templates fail in other ways too"
        fault = self._faults.setdefault(problem, RenderingFault(what=problem))
        fault.recipients += 1
        if len(fault.examples) < _MAX_EXAMPLES:
            fault.examples.append(address)

    @property
    def samples(self) -> list[Sample]:
        """Some recipients without an error: the first ones, and those of different sets of values.

        The last one has the longest values.
        """
        found = dict([*self._first, *self._distinct])
        if self._largest is not None:
            found.pop(self._largest[0], None)  # It is the last one.
            found[self._largest[0]] = self._largest[1]
        return [(address, self._texts(attributes)) for address, attributes in found.items()]

    @property
    def message(self) -> CompiledMessage:
        """The message of the campaign's sender."""
        return self._messages[0]

    @property
    def shown_fields(self) -> frozenset[str]:
        """Merge fields that are only shown, and not evaluated."""
        return frozenset(name for name, by_value in self._fields if not by_value)

    def _texts(self, attributes: Mapping[str, Any]) -> dict[str, str]:
        return {name: str(attributes[name]) for name, _ in self._fields if name in attributes}

    def _examine(self, address: str, attributes: Mapping[str, Any]) -> None:
        self.rendered += 1
        if len(self._first) < SAMPLES:
            self._first.append((address, attributes))
        length = 0
        for name, _ in self._fields:
            value = attributes.get(name)
            if value is None:
                self.missing[name] += 1
            else:
                length += len(str(value))
        if length > self._longest:
            self._longest, self._largest = length, (address, attributes)

    def _outcome(self, address: str, attributes: Mapping[str, Any]) -> str | None:
        """Return the rendering error of a recipient, or None."""
        values: list[object] = [address] if self._address_by_value else []
        for name, by_value in self._fields:
            value = attributes.get(name)
            if by_value or value is None:
                values.append(value)
            elif len(str(value)) > MAX_SHOWN:
                return self._render(address, attributes)
            else:
                values.append(True)
        key = hash(tuple(values))
        outcome = self._known.get(key, self)
        if outcome is self:
            outcome = self._first_outcome(address, attributes)
            if len(self._known) < _MAX_KNOWN:
                self._known[key] = outcome
        return self._render(address, attributes) if outcome is _INDIVIDUAL else outcome

    def _first_outcome(self, address: str, attributes: Mapping[str, Any]) -> object:
        """Return the outcome for all recipients with such values, or `_INDIVIDUAL` if it differs among them."""
        failed = self._render(address, attributes, shown=_LONG)
        if failed is None:
            if len(self._distinct) < SAMPLES:
                self._distinct.append((address, attributes))
            return None
        return failed if failed == self._render(address, attributes, shown="x") else _INDIVIDUAL

    def _render(self, address: str, attributes: Mapping[str, Any], shown: str | None = None) -> str | None:
        """Return the rendering error, or None. ``shown`` replaces the values of fields that are only shown."""
        fields = {
            name: str(attributes[name]) if by_value or shown is None else shown
            for name, by_value in self._fields
            if name in attributes
        }
        for message in self._messages:
            try:
                message.require_rendering({**fields, **message.reserved_fields(0, address)})
            except DataError as error:
                return f"{error.where}: {error.message}"
        return None


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """Number of recipients that were tried, and of all recipients."""

    recipients: int
    total: int


def try_audience(
    engine: sa.Engine,
    segment: Segment,
    trials: Sequence[StepTrial],
    *,
    total: int,
    budget_s: float,
    progress: Callable[[int, int], None] | None = None,
    excluded: Set[int] = frozenset(),
) -> TrialResult:
    """Try all recipients of a segment, in short transactions.

    Args:
        engine: The database.
        segment: The segment.
        trials: One for each step.
        total: Number of recipients of the segment.
        budget_s: Processor time after which the trial ends, in seconds.
        progress: Called with the number of recipients that are done, and with ``total``.
        excluded: Hashes of addresses to skip, because a file that is imported first changes those recipients.

    Returns:
        The number of recipients that were tried.
    """
    begun, done = time.thread_time(), 0
    for page in _pages(engine, segment):
        for address, attributes in page:
            if hash(address) in excluded:
                continue
            for trial in trials:
                trial.try_recipient(address, attributes)
        done += len(page)
        if progress is not None:
            progress(done, max(total, done))
        if time.thread_time() - begun > budget_s:
            break
    return TrialResult(recipients=done, total=max(total, done))


def _pages(engine: sa.Engine, segment: Segment) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    after = 0
    while True:
        with read(engine) as connection:
            members = (
                "SELECT recipient_id FROM audience_member WHERE audience_id = :audience_id AND recipient_id > :after "
                "ORDER BY recipient_id LIMIT :page"
            )
            statement = sa.text(
                f"SELECT id, address, attributes FROM recipient WHERE id {any_of(connection, members)} ORDER BY id"
            ).columns(
                sa.column("id", sa.Integer()), sa.column("address", sa.Text()), sa.column("attributes", sa.JSON())
            )
            values = {"audience_id": segment.audience_id, "after": after, "page": _PAGE}
            rows = connection.execute(statement, values).all()
            met = segment.meeting(connection, [row.id for row in rows])
        if not rows:
            return
        after = rows[-1].id
        yield [(row.address, row.attributes) for row in rows if row.id in met]
