"""Faults that are encoded in a recipient's address, so that a demo needs no configuration.

The tag is the text after the last ``+`` of the local part: ``ada+550-5.1.1@example.com``. Any tag may end in
``-at-rcpt``, ``-at-data`` or ``-at-dot``, which sets the phase. An address with an unknown tag causes no fault.

======================  =======  ======================================================================
tag                     phase    effect
======================  =======  ======================================================================
``550-5.1.1``, ``451``  rcpt     that reply: a 4xx or 5xx code, and an enhanced code if given
``gmail-over-quota``    its own  the reply of that name in ``replies.toml``
``bounce``              rcpt     ``550 5.1.1``, in Gmail's wording
``full``                rcpt     ``552 5.2.2``, in Gmail's wording
``defer``               rcpt     ``451 4.7.1``, always
``greylist-3``          rcpt     ``451 4.7.1`` for the first 3 attempts (``greylist``: for one), then accepted
``slow-2000ms``         dot      the reply is sent after 2,000 ms
``trickle-50ms``        dot      the reply is sent one octet every 50 ms
``hang``                dot      no reply, and the connection stays open
``drop``                rcpt     the connection is closed instead of the reply
``drop-after-dot``      dot      the connection is closed after the final dot; the message is *not* stored
``drop-after-dot-kept`` dot      the same, but the message *is* stored, which the client cannot know
======================  =======  ======================================================================
"""

from __future__ import annotations

import re
from functools import lru_cache

from postroad.sandbox.replies import provider_replies
from postroad.sandbox.rules import RECIPIENT_KNOWN, ConnectionEnding, Fault, RulePhase, SandboxRule

_CODE = re.compile(r"([45]\d\d)(?:-([45]\.\d{1,3}\.\d{1,3}))?")
_MEASURED = re.compile(r"(slow|trickle)-(\d{1,7})ms")
_GREYLIST = re.compile(r"greylist(?:-(\d{1,4}))?")
_MOVED = re.compile(r"(.+)-at-(rcpt|data|dot)")

FAULTS_BY_WORD = {
    "bounce": (RulePhase.RCPT, Fault(reply="gmail-no-such-user")),
    "full": (RulePhase.RCPT, Fault(reply="gmail-over-quota")),
    "defer": (RulePhase.RCPT, Fault(reply="greylisted")),
    "hang": (RulePhase.DOT, Fault(ending=ConnectionEnding.HANG)),
    "drop": (RulePhase.RCPT, Fault(ending=ConnectionEnding.DROP)),
    "drop-after-dot": (RulePhase.DOT, Fault(ending=ConnectionEnding.DROP)),
    "drop-after-dot-kept": (RulePhase.DOT, Fault(ending=ConnectionEnding.DROP, keep=True)),
}


def tag_of(address: str) -> str:
    """Return the text after the last ``+`` of the local part, in lower case, or an empty string."""
    local_part = address.rpartition("@")[0]
    _, plus, tag = local_part.rpartition("+")
    return tag.lower() if plus else ""


@lru_cache(maxsize=1024)
def rule_of_tag(tag: str) -> SandboxRule | None:
    """Return the rule for a tag, or None if the tag is unknown."""
    moved = _MOVED.fullmatch(tag)
    word, forced = (moved[1], RulePhase(moved[2])) if moved else (tag, None)
    greylist = _GREYLIST.fullmatch(word)
    if greylist:
        fault = Fault(reply="greylisted")
        return SandboxRule(phase=forced or RulePhase.RCPT, fault=fault, first_attempts=int(greylist[1] or 1))
    parsed = _parse_fault(word)
    if parsed is None:
        return None
    phase, fault = parsed
    if fault.keep and forced not in (None, RulePhase.DOT):
        return None
    return SandboxRule(phase=forced or phase, fault=fault)


def _parse_fault(word: str) -> tuple[RulePhase, Fault] | None:
    if word in FAULTS_BY_WORD:
        return FAULTS_BY_WORD[word]
    code = _CODE.fullmatch(word)
    if code:
        return RulePhase.RCPT, Fault(reply=f"{code[1]} {code[2]}" if code[2] else code[1])
    measured = _MEASURED.fullmatch(word)
    if measured:
        span_ms = int(measured[2])
        slow = measured[1] == "slow"
        return RulePhase.DOT, Fault(delay_ms=span_ms) if slow else Fault(byte_delay_ms=span_ms)
    named = provider_replies().get(word)
    if named:
        phase = RulePhase(named.phase)
        # A provider's reply to a connection or to MAIL is sent at RCPT instead, where the address is first known.
        return (phase if phase in RECIPIENT_KNOWN else RulePhase.RCPT), Fault(reply=word)
    return None
