"""Renderings of a step before the launch: one for each set of values that can decide whether a rendering fails.

A template fails for a recipient because a merge field is missing, because of its value, or because the values are too
long. Fields that are only shown count by their presence: one rendering with long values in their place stands for all
recipients who have the same fields. Fields whose value decides count by their value. So every recipient is looked at,
and few are rendered; who cannot stand for others is rendered alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from postroad.errors import DataError
from postroad.mail.message import CompiledMessage
from postroad.mail.template import RESERVED
from postroad.store.bulk import any_of
from postroad.store.engine import read

MAX_SHOWN: Final = 250
"""Characters of a field that a rendering with long values stands for."""
_LONG: Final = (
    '"' * 4 * MAX_SHOWN
)  # No text grows more by a filter or by escaping: in HTML a quote has five characters.
_PAGE: Final = 2_000
_MAX_KNOWN: Final = 200_000  # sets of values that are remembered, of each step
_MAX_FAULTS: Final = 20
_MAX_EXAMPLES: Final = 3
_ALONE: Final = object()


@dataclass(kw_only=True)
class RenderingFault:
    """One way in which a step cannot be rendered: what is wrong, for how many recipients, and some of them."""

    what: str
    recipients: int = 0
    examples: list[str] = field(default_factory=list)


class StepTrial:
    """Renders a step for recipients of an audience, and collects what fails."""

    def __init__(self, messages: Sequence[CompiledMessage]) -> None:
        """Prepare a trial.

        Args:
            messages: The step as each of its senders sends it, the campaign's own first.
        """
        by_value = messages[0].value_fields
        of_sender = {"sender_name", "postal_address"}
        self._messages = messages if by_value & of_sender else messages[:1]
        self._fields = [(name, name in by_value) for name in sorted(messages[0].fields - RESERVED)]
        self._address_by_value = "address" in by_value
        self._ours = messages[0].fields & RESERVED
        self.name = messages[0].name
        self.shadowed: Counter[str] = Counter()  # recipients who have a column of the name of a field of ours
        self._known: dict[int, Any] = {}  # what a set of values leads to, by its hash
        self._faults: dict[str, RenderingFault] = {}

    @property
    def faults(self) -> list[RenderingFault]:
        return list(self._faults.values())

    def look_at(self, address: str, attributes: Mapping[str, Any]) -> None:
        """Find out whether the step can be rendered for a recipient."""
        self.shadowed.update(self._ours & attributes.keys())
        what = self._outcome(address, attributes)
        if what is None:
            return
        if what not in self._faults and len(self._faults) >= _MAX_FAULTS:
            what = "its templates fail in other ways too"
        fault = self._faults.setdefault(what, RenderingFault(what=what))
        fault.recipients += 1
        if len(fault.examples) < _MAX_EXAMPLES:
            fault.examples.append(address)

    def _outcome(self, address: str, attributes: Mapping[str, Any]) -> str | None:
        """Return what is wrong, if anything is."""
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
        return self._render(address, attributes) if outcome is _ALONE else outcome

    def _first_outcome(self, address: str, attributes: Mapping[str, Any]) -> object:
        """Return the outcome of all recipients with such values. `_ALONE`: it differs."""
        failed = self._render(address, attributes, shown=_LONG)
        if failed is None:
            return None
        return failed if failed == self._render(address, attributes, shown="x") else _ALONE

    def _render(self, address: str, attributes: Mapping[str, Any], shown: str | None = None) -> str | None:
        """Return what fails. ``shown``: a value for all fields that are only shown."""
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
class Tried:
    """How many recipients a trial looked at, of how many."""

    recipients: int
    total: int


def try_audience(
    engine: sa.Engine,
    audience_id: int,
    trials: Sequence[StepTrial],
    *,
    total: int,
    budget_s: float,
    progress: Callable[[int, int], None] | None = None,
    apart: Set[int] = frozenset(),
) -> Tried:
    """Show all recipients of an audience to trials, in short transactions.

    Args:
        engine: The database.
        audience_id: The audience.
        trials: One for each step.
        total: How many recipients the audience has.
        budget_s: Processor time after which the trial ends, in seconds.
        progress: Is called with the number of recipients that were looked at, and with ``total``.
        apart: Hashes of addresses that are not shown: a file that is imported first changes those recipients.
    """
    begun, done = time.thread_time(), 0
    for page in _pages(engine, audience_id):
        for address, attributes in page:
            if hash(address) in apart:
                continue
            for trial in trials:
                trial.look_at(address, attributes)
        done += len(page)
        if progress is not None:
            progress(done, max(total, done))
        if time.thread_time() - begun > budget_s:
            break
    return Tried(recipients=done, total=max(total, done))


def _pages(engine: sa.Engine, audience_id: int) -> Iterator[list[tuple[str, dict[str, Any]]]]:
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
            rows = connection.execute(statement, {"audience_id": audience_id, "after": after, "page": _PAGE}).all()
        if not rows:
            return
        after = rows[-1].id
        yield [(row.address, row.attributes) for row in rows]
