"""What a reply means for a touch: a pure function, and its rules as tables.

The enhanced code decides first (RFC 3463, RFC 5248), then the reply code, then the text. A permanent reply that
blames the sender never counts against the recipient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from postroad.errors import Blame
from postroad.smtp.reply import Phase, Reply
from postroad.smtp.session import TransportError

MINUTE_MS = 60_000
DEFERRAL_MS = (30 * MINUTE_MS, 30 * MINUTE_MS, 120 * MINUTE_MS, 180 * MINUTE_MS)
"""Delay after the first, second, … deferral; the last repeats. RFC 5321 §4.5.4.1: 30 min, later 2–3 h."""

BUSY_MS = (MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS)
"""Delay after the first, second, … time that all slots of a slow destination were taken; the last repeats."""

SENDER_PAUSE_MS = 60 * MINUTE_MS


class Verdict(StrEnum):
    """What becomes of the touch."""

    ACCEPTED = "accepted"
    RETRY = "retry"  # uses an attempt, soon: transport failed
    DEFER = "defer"  # uses none, later: the server asked for it
    BOUNCED = "bounced"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Pause(StrEnum):
    """What else is held back, because more of the same would meet the same."""

    SENDER = "sender"  # until a person has mended the sender's authentication
    SENDER_AT_PROVIDER = "sender-at-provider"
    ROUTE = "route"


class Obstacle(StrEnum):
    """Why nothing could be said to any mail host of a domain."""

    TAKES_NO_MAIL = "takes no mail"  # null MX
    NO_SUCH_DOMAIN = "no such domain"
    NO_SUCH_HOST = "no such host"  # its mail hosts have no address
    LOOP = "loop"  # its best mail host is this machine
    NO_ANSWER = "no answer"  # of DNS
    NOT_PUBLIC = "not public"  # its mail hosts are at loopback or private addresses only
    HOSTS_DOWN = "hosts down"
    BUSY = "busy"  # its mail hosts are so slow that all their slots are taken
    POLICY = "policy"  # no host is what the domain's own policy asks for


class ObstacleError(Exception):
    """No transaction was begun, and why. ``reply``: what a host said that would not have us."""

    def __init__(self, obstacle: Obstacle, reason: str, *, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.obstacle = obstacle
        self.reason = reason
        self.reply = reply


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The judgement on one attempt."""

    verdict: Verdict
    cause: str
    blame: Blame | None = None
    delay_ms: int | None = None
    suppress: bool = False
    pause: Pause | None = None


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """A reply that matches means this."""

    cause: str
    blame: Blame
    verdict: Verdict = Verdict.BOUNCED
    enhanced: str | None = None  # regular expression for all of the enhanced code
    codes: tuple[int, ...] = ()
    text: str | None = None  # regular expression anywhere in the text, for replies without a telling code
    suppress: bool = False
    pause: Pause | None = None

    def matches(self, reply: Reply) -> bool:
        if reply.phase is Phase.MAIL and self.blame is Blame.RECIPIENT:
            return False  # Nobody has named a recipient yet.
        if self.enhanced is not None and re.fullmatch(self.enhanced, reply.enhanced or "") is None:
            return False
        if self.codes and reply.code not in self.codes:
            return False
        return self.text is None or re.search(self.text, reply.text, re.IGNORECASE) is not None


_SENDER_TEXT = (
    r"spam|blocked|black ?list|block ?list|reputation|policy|dmarc|spf|dkim|denied|not (allowed|permitted)|prohibit"
    r"|unauthenticated|sender (verify|address rejected|rejected|denied)|(daily|hourly|sending) .{0,20}(limit|quota)"
)
_UNKNOWN_TEXT = (
    r"user (is )?unknown|unknown (user|recipient|mailbox|address)|no such (user|recipient|mailbox|person|address)"
    r"|does ?n[o']t exist|does ?n[o']t have an? .{0,80}account|no mailbox|mailbox (not found|does not)"
    r"|invalid (recipient|mailbox)|recipient (not found|unknown)|not a valid|unrouteable address"
)

_AUTHENTICATION = "2[0-79]|3[0-2]|40"
"""Last part of the codes that say so: RFC 7372 (20 to 26), Google's (25 to 32, 40). Not 28: a flood of mail."""

_ROUTE_CODES = frozenset({530, 534, 535, 538})
"""RFC 4954 §6, RFC 3207 §4: the relay wants a login, or TLS, before it takes anything from anybody."""
_ROUTE_ENHANCED = frozenset({"5.4.5"})
"""How Google's relay words a day's limit that is used up."""

PERMANENT: Sequence[_Rule] = (
    # The sender's authentication is broken: Microsoft 5.7.515, Google 5.7.26 and its kin.
    _Rule(
        cause="sender authentication",
        blame=Blame.SENDER,
        verdict=Verdict.DEAD,
        enhanced=rf"5\.7\.({_AUTHENTICATION}|515|509)",
        pause=Pause.SENDER,
    ),
    # As receivers word it who have no code of their own for it, Apple among them. One of them may be wrong.
    _Rule(
        cause="sender authentication",
        blame=Blame.SENDER,
        verdict=Verdict.DEAD,
        enhanced=r"5\.7\.\d+",
        text=r"\bdmarc\b|\b(spf|dkim)\b.{0,40}(fail|not pass)|(fail|did not pass).{0,40}\b(spf|dkim)\b",
        pause=Pause.SENDER_AT_PROVIDER,
    ),
    # RFC 3463 §3.8 for X.7.2, and Microsoft's own: a list or a person that takes mail from few. Others take ours.
    _Rule(cause="not for us to write to", blame=Blame.RECIPIENT, enhanced=r"5\.7\.(2|124|129|13[346])"),
    _Rule(
        cause="sender refused",
        blame=Blame.SENDER,
        verdict=Verdict.DEAD,
        enhanced=r"5\.7\.\d+",
        pause=Pause.SENDER_AT_PROVIDER,
    ),
    # RFC 3463 §3.2: X.1.7 and X.1.8 are about the sender's address, X.1.0 may be.
    _Rule(cause="sender address refused", blame=Blame.SENDER, verdict=Verdict.DEAD, enhanced=r"5\.1\.[78]"),
    _Rule(
        cause="sender address refused",
        blame=Blame.SENDER,
        verdict=Verdict.DEAD,
        enhanced=r"5\.1\.0",
        text=r"\bsender\b",
    ),
    _Rule(cause="no such mailbox", blame=Blame.RECIPIENT, enhanced=r"5\.1\.(1|2|3|6|10)", suppress=True),
    _Rule(cause="recipient address", blame=Blame.RECIPIENT, enhanced=r"5\.1\.\d+", suppress=True),
    _Rule(cause="mailbox disabled", blame=Blame.RECIPIENT, enhanced=r"5\.2\.1"),
    _Rule(cause="mailbox full", blame=Blame.RECIPIENT, enhanced=r"5\.2\.2"),
    _Rule(cause="message too big", blame=Blame.MESSAGE, enhanced=r"5\.(2\.3|3\.4)"),
    # How Microsoft says that it knows nobody of that name: the first at Office 365, the second at Outlook.com.
    _Rule(
        cause="no such mailbox",
        blame=Blame.RECIPIENT,
        enhanced=r"5\.4\.1",
        text="recipient address rejected",
        suppress=True,
    ),
    _Rule(
        cause="no such mailbox", blame=Blame.RECIPIENT, enhanced=r"5\.5\.0", text="mailbox unavailable", suppress=True
    ),
    # RFC 7504 §4: the domain takes no mail at all.
    _Rule(cause="domain takes no mail", blame=Blame.RECIPIENT, codes=(556,), suppress=True),
    _Rule(cause="message refused", blame=Blame.MESSAGE, verdict=Verdict.DEAD, enhanced=r"5\.6\.\d+"),
    # RFC 3463 §3.6: the two of us disagree about the protocol, and nothing was said about the message.
    _Rule(cause="protocol error", blame=Blame.US, verdict=Verdict.RETRY, enhanced=r"5\.5\.\d+"),
    _Rule(cause="protocol error", blame=Blame.US, verdict=Verdict.RETRY, codes=(500, 502, 503, 504)),
    _Rule(cause="sender refused", blame=Blame.SENDER, verdict=Verdict.DEAD, text=_SENDER_TEXT),
    _Rule(
        cause="no such mailbox",
        blame=Blame.RECIPIENT,
        codes=(550, 551, 552, 553, 554),
        text=_UNKNOWN_TEXT,
        suppress=True,
    ),
    # RFC 5321 §4.2.3, word for word, is what GMX and its like say of a mailbox that is not there.
    _Rule(cause="no such mailbox", blame=Blame.RECIPIENT, codes=(550,), text="mailbox unavailable", suppress=True),
    _Rule(
        cause="mailbox full",
        blame=Blame.RECIPIENT,
        text=r"quota|mailbox (is )?full|insufficient storage|too many messages on",
    ),
    _Rule(
        cause="mailbox disabled",
        blame=Blame.RECIPIENT,
        text=r"(mailbox|account|user|address)\b.{0,40}\b(disabled|suspended|inactive|deactivated)",
    ),
    # A bare 552 is about room, RFC 5321 §4.2.3.
    _Rule(cause="mailbox full", blame=Blame.RECIPIENT, codes=(552,)),
)

TEMPORARY: Sequence[_Rule] = (
    _Rule(cause="sender authentication, so far", blame=Blame.SENDER, enhanced=rf"4\.7\.({_AUTHENTICATION})"),
    _Rule(cause="greylisted", blame=Blame.HOST, text=r"gr[ae]y-?list"),
    _Rule(cause="mailbox full, so far", blame=Blame.RECIPIENT, enhanced=r"4\.2\.2"),
    _Rule(cause="mailbox full, so far", blame=Blame.RECIPIENT, text=r"over ?quota|mailbox (is )?full"),
    _Rule(
        cause="recipient gets too much mail",
        blame=Blame.RECIPIENT,
        text=r"receiving (e?mail|messages?) (too quickly|at a rate)",
    ),
    _Rule(cause="sender address, so far", blame=Blame.SENDER, enhanced=r"4\.1\.[78]"),
    _Rule(
        cause="sender not trusted, so far",
        blame=Blame.SENDER,
        text=r"reputation|complaint|unsolicited|\bspam\b|suspicious",
    ),
)

"""Whose doing a deferral is. All of them wait alike: what it means for others is for the shaping to say."""

HARD_CAUSES = tuple(
    sorted({rule.cause for rule in PERMANENT if rule.suppress} | {"domain takes no mail", "no such domain"})
)
"""Causes of bounces that say that there is no such mailbox: what they are many of was no clean list."""

_DEFERRED = _Rule(cause="deferred by the host", blame=Blame.HOST)


def of_reply(reply: Reply, *, deferrals: int) -> Outcome:
    """Judge a reply. ``deferrals``: how often the touch was deferred before."""
    if reply.positive:
        return _of_positive(reply)
    if reply.phase in (Phase.CONNECT, Phase.EHLO, Phase.TLS, Phase.AUTH):
        # Nothing was said about this message: the route is not to be had, for all.
        return route_down(str(reply))
    if reply.code < 500:
        why = next((rule for rule in TEMPORARY if rule.matches(reply)), _DEFERRED)
        return _deferred(why.cause, deferrals, why.blame)
    if reply.code in _ROUTE_CODES or reply.enhanced in _ROUTE_ENHANCED:
        return route_down(str(reply))
    for rule in PERMANENT:
        if rule.matches(reply):
            return Outcome(
                verdict=rule.verdict, cause=rule.cause, blame=rule.blame, suppress=rule.suppress, pause=rule.pause
            )
    if reply.phase is Phase.MAIL:
        return Outcome(verdict=Verdict.DEAD, cause="sender refused", blame=Blame.SENDER)
    # Permanent, and nobody says why: it ends this touch, and suppresses nobody.
    return Outcome(verdict=Verdict.BOUNCED, cause="refused without a reason", blame=Blame.HOST)


def _deferred(cause: str, deferrals: int, blame: Blame = Blame.HOST) -> Outcome:
    delay_ms = DEFERRAL_MS[min(deferrals, len(DEFERRAL_MS) - 1)]
    return Outcome(verdict=Verdict.DEFER, cause=cause, blame=blame, delay_ms=delay_ms)


def of_obstacle(obstacle: Obstacle, *, deferrals: int) -> Outcome:
    """Judge what stood between us and a domain. It never holds back the route: other domains have other hosts."""
    match obstacle:
        case Obstacle.TAKES_NO_MAIL:  # RFC 7505 §4.1: 5.1.10, at once
            return _undeliverable("domain takes no mail")
        case Obstacle.NO_SUCH_DOMAIN:  # RFC 3463 §3.2: 5.1.2
            return _undeliverable("no such domain")
        case Obstacle.NO_SUCH_HOST:
            # The domain is there, and its owner made a mistake that may be mended: it suppresses nobody.
            return Outcome(verdict=Verdict.BOUNCED, cause="no such mail host", blame=Blame.HOST)
        case Obstacle.NOT_PUBLIC:
            # As Exim's ignore_target_hosts does: such a host is no host. What DNS says may be mended.
            return Outcome(verdict=Verdict.BOUNCED, cause="no public mail host", blame=Blame.HOST)
        case Obstacle.LOOP:  # RFC 3463 §3.5: 5.4.6
            return Outcome(verdict=Verdict.DEAD, cause="mail loops back", blame=Blame.US)
        case Obstacle.NO_ANSWER:
            return _deferred("DNS gives no answer", deferrals)
        case Obstacle.HOSTS_DOWN:
            return _deferred("mail hosts down", deferrals)
        case Obstacle.BUSY:
            delay_ms = BUSY_MS[min(deferrals, len(BUSY_MS) - 1)]
            return Outcome(verdict=Verdict.DEFER, cause="mail hosts busy", blame=Blame.HOST, delay_ms=delay_ms)
        case Obstacle.POLICY:  # RFC 8461 §5: to be tried again
            return _deferred("TLS policy not met", deferrals)
        case other:
            assert_never(other)


def _undeliverable(cause: str) -> Outcome:
    return Outcome(verdict=Verdict.BOUNCED, cause=cause, blame=Blame.RECIPIENT, suppress=True)


_ACCEPTED = Outcome(verdict=Verdict.ACCEPTED, cause="accepted")


def _of_positive(reply: Reply) -> Outcome:
    if reply.phase is not Phase.DOT:
        # The server has come as far as to ask for more, and no message has left.
        return Outcome(verdict=Verdict.RETRY, cause="protocol error", blame=Blame.US)
    if reply.code >= 300:
        return Outcome(verdict=Verdict.UNKNOWN, cause="no clear word after the final dot", blame=Blame.HOST)
    return _ACCEPTED


def of_transport(error: TransportError) -> Outcome:
    """Judge a connection that could not be made, or was lost."""
    if error.unknown:
        return Outcome(verdict=Verdict.UNKNOWN, cause="connection lost after the final dot", blame=Blame.HOST)
    if error.phase in (Phase.CONNECT, Phase.EHLO, Phase.TLS, Phase.AUTH):
        return route_down(error.reason)
    return Outcome(verdict=Verdict.RETRY, cause=f"connection lost at {error.phase}", blame=Blame.HOST)


def route_down(reason: str) -> Outcome:
    """No session can be had: the touch waits with all others of the route, and no attempt is used."""
    return Outcome(
        verdict=Verdict.DEFER, cause=f"route down: {reason}"[:100], blame=Blame.US, delay_ms=5_000, pause=Pause.ROUTE
    )
