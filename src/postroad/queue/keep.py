"""How much a queue keeps of what is over."""

from __future__ import annotations

from msgspec import Struct


class Retention(Struct, frozen=True, kw_only=True):
    """What a queue keeps of jobs that ended: at least the last ``done``, and the last ``failed`` (died or expired).

    ``remember_ms``: how long an ended id stays known if nobody acknowledges its outcome. Dead letters are
    no history: they stay until they are replayed or dropped. ``events``: when so many wait for a group to
    acknowledge them, nothing is claimed until fewer do, for no event is dropped unread; without any group the
    newest of them are kept. ``consumer_ms``: a consumer of events that owes nothing and was not seen for so
    long is forgotten. Give all workers of one queue the same.
    """

    done: int = 1000
    failed: int = 5000
    remember_ms: int = 7 * 24 * 3600 * 1000
    events: int = 1_000_000
    consumer_ms: int = 3_600_000

    def __post_init__(self) -> None:
        if min(self.done, self.failed, self.remember_ms, self.consumer_ms) < 0 or self.events < 100:
            raise ValueError(f"{self} keeps nothing, or less: events start at 100, the others at 0")

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """As the scripts take them."""
        return self.remember_ms, self.done, self.failed, self.events
