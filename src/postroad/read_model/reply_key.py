"""What groups replies: their cause, their codes, and their text without what differs between messages."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from postroad.store.event_page import OutcomeRow, ReplyRow


class ReplyKey(NamedTuple):
    """What the replies of one group have in common. ``rule``: the cause by which they were classified."""

    rule: str | None
    reply_code: int | None
    enhanced_code: str | None
    text: str


_FIXED_WORD = re.compile(r"(?<!\S)[^\s\d@/\\=]+(?!\S)")
"""A word without what differs between messages: addresses, ids, times, hosts and URLs."""
_AROUND_WORD: Final = "<>'\":;,.()"


def reply_key(row: ReplyRow | OutcomeRow) -> ReplyKey:
    """Return the group of the reply of an outcome."""
    words = _FIXED_WORD.findall(row.reply or "")
    own = row.address.rpartition("@")[0].casefold()
    text = " ".join(words)
    if own in text.casefold():
        text = " ".join(word for word in words if word.casefold().strip(_AROUND_WORD) != own)
    return ReplyKey(row.cause, row.reply_code, row.enhanced_code, text)
