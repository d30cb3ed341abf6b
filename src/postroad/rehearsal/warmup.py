"""Warming senders in a rehearsal: their days are closed as the flow `warmup` does, and their caps are reported."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.app.warmup import close_day, set_caps
from postroad.store.engine import read
from postroad.warmup.caps import providers
from postroad.warmup.day import count_mail, day_of, history_of, set_cap
from postroad.warmup.identity import identities
from postroad.warmup.plan import plan_for


@dataclass(frozen=True, kw_only=True)
class WarmupDayAccount:
    """What a warming identity sent to one provider on one day, in messages, and the cap that held."""

    identity: str
    provider: str
    day: date
    cap: int
    sent: int


@dataclass(frozen=True, kw_only=True)
class OverflowAccount:
    """Touches that another sender took over, because the caps of the campaign's sender could not carry them."""

    sender: str
    touches: int
    why: str


class WarmupDays:
    """Closes the days of warming senders while the rehearsal's clock passes them."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._identities = identities(context.settings)
        self._closed: dict[str, date] = {}

    def begin(self, day: int) -> None:
        """Let every plan begin on this day, the first being 1: the cap of that day holds today.

        Raises:
            UnavailableError: The database is unavailable.
        """
        if day == 1:
            return
        now, why = self._context.clock.now(), f"--warmup-day {day}"
        for identity in self._identities:
            for provider in providers():
                cap = plan_for(identity.warmup, provider).on_day(day - 1)
                set_cap(self._context.engine, identity, provider, cap, by="rehearsal", why=why, now=now)

    async def close(self) -> None:
        """Close each day that is over, decide the caps of the one that has begun, and set the gates.

        Raises:
            UnavailableError: The database or the queue is unavailable.
        """
        now = self._context.clock.now()
        over = [identity for identity in self._identities if self._closed.get(identity.name) != day_of(identity, now)]
        if not over:
            return
        await close_day(self._context, over, now)
        await set_caps(self._context)
        self._closed.update({identity.name: day_of(identity, now) for identity in over})

    def account(self, since: datetime) -> tuple[WarmupDayAccount, ...]:
        """Return each day since then on which mail was sent, in order of identity, day and provider."""
        accounts = []
        for identity in self._identities:
            first, last = day_of(identity, since), day_of(identity, self._context.clock.now())
            days = [first + timedelta(days=passed) for passed in range((last - first).days + 1)]
            history = history_of(self._context.engine, [identity.name], first)
            caps = {(provider, row.day): row.cap for (_, provider), rows in history for row in rows}
            with read(self._context.engine) as connection:
                mail = count_mail(connection, identity, days)
            for day, by_provider in mail.items():
                for provider, counts in sorted(by_provider.items()):
                    cap = caps.get((provider, day), plan_for(identity.warmup, provider).first)
                    accounts.append(
                        WarmupDayAccount(
                            identity=identity.name, provider=provider, day=day, cap=cap, sent=counts.attempts
                        )
                    )
        return tuple(account for account in accounts if account.sent)


def overflow_account(connection: sa.Connection) -> tuple[OverflowAccount, ...]:
    """Return what other senders took over, by sender and reason, the most touches first."""
    rows = connection.execute(
        sa.text(
            "SELECT sender.name, overflow.why, count(*) AS touches FROM overflow "
            "JOIN sender ON sender.id = overflow.sender_id GROUP BY sender.name, overflow.why "
            "ORDER BY touches DESC, sender.name, overflow.why"
        )
    )
    return tuple(OverflowAccount(sender=row.name, touches=row.touches, why=row.why) for row in rows)
