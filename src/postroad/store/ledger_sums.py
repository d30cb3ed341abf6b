"""Counts of what a database holds, by which a copy of it is compared with it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import sqlalchemy as sa


class LedgerSums(msgspec.Struct, frozen=True):
    """Counts of one state of a database.

    ``rows``: by table. ``touches``: by campaign and state. ``suppressions``: by reason.
    """

    rows: dict[str, int]
    touches: dict[str, dict[str, int]]
    suppressions: dict[str, int]

    def differences(self, copy: LedgerSums) -> list[str]:
        """Return a line for each count that differs in a copy."""
        ours, theirs = self._by_name(), copy._by_name()
        return [
            f"{name}: {ours.get(name, 0):,} in the manifest, {theirs.get(name, 0):,} restored"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name, 0) != theirs.get(name, 0)
        ]

    def _by_name(self) -> dict[str, int]:
        named = {f"rows of {table}": rows for table, rows in self.rows.items()}
        for campaign, states in self.touches.items():
            named |= {f"{state} touches of the campaign {campaign!r}": count for state, count in states.items()}
        return named | {f"suppressions for {reason}": count for reason, count in self.suppressions.items()}


def ledger_sums(connection: sa.Connection, report: Callable[[int, int], None] | None = None) -> LedgerSums:
    """Count the rows of every table, touches and suppressions. All counts are of the connection's transaction.

    Args:
        connection: The database, at any revision. On PostgreSQL its transaction must be REPEATABLE READ.
        report: Called after each table with the number of counted tables, and of all.

    Returns:
        The counts.
    """
    tables = sorted(sa.inspect(connection).get_table_names())
    rows = {}
    for number, table in enumerate(tables, start=1):
        rows[table] = connection.execute(sa.select(sa.func.count()).select_from(sa.table(table))).scalar_one()
        if report is not None:
            report(number, len(tables))
    touches: dict[str, dict[str, int]] = {}
    for campaign, state, count in connection.execute(_TOUCHES):
        touches.setdefault(campaign, {})[state] = int(count)
    suppressions = {reason: int(count) for reason, count in connection.execute(_SUPPRESSIONS)}
    return LedgerSums(rows, touches, suppressions)


# The condition always holds. With it, the counts come from `ix_touch_step_state`, and no row is sorted.
_TOUCHES = sa.text(
    "SELECT campaign.name, counted.state, sum(counted.touches) FROM (SELECT step_id, state, count(*) AS touches "
    "FROM touch WHERE claim >= 0 GROUP BY step_id, state) AS counted JOIN step ON step.id = counted.step_id "
    "JOIN campaign ON campaign.id = step.campaign_id GROUP BY campaign.name, counted.state"
)
_SUPPRESSIONS = sa.text("SELECT reason, count(*) FROM suppression GROUP BY reason")
