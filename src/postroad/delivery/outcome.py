"""Decides what a reply means for a touch: pure functions.

What the reply says is classified by `postroad.classify`. A refusal that is the sender's fault never counts against the
recipient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never

from postroad.classify.cause import HARD_CAUSES as HARD
from postroad.classify.cause import Cause
from postroad.classify.classify import Classification, classify
from postroad.classify.relay import names_sender
from postroad.classify.statement import Speaker, Statement
from postroad.classify.text import clean, words_for_all
from postroad.errors import Blame
from postroad.smtp.reply import Phase, Reply
from postroad.smtp.session import TransportError

MINUTE_MS = 60_000
DEFERRAL_MS = (30 * MINUTE_MS, 30 * MINUTE_MS, 120 * MINUTE_MS, 180 * MINUTE_MS)
"""Delay after the first, second, … deferral; the last repeats. RFC 5321 §4.5.4.1: 30 min, later 2–3 h."""

BUSY_MS = (MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS)
"""Delay after the first, second, … time that all slots of a slow destination were taken; the last repeats."""

SENDER_PAUSE_MS = 60 * MINUTE_MS


class DeliveryVerdict(StrEnum):
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


class UnreachableReason(StrEnum):
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


class NoMailHostError(Exception):
    """No transaction was begun, and why. ``reply``: what a host said that would not have us."""

    def __init__(self, obstacle: UnreachableReason, reason: str, *, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.obstacle = obstacle
        self.reason = reason
        self.reply = reply


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The judgement on one attempt.

    ``words``: those of a refusal that is about the sender if many recipients get it. Empty: it means this recipient.
    """

    verdict: DeliveryVerdict
    cause: str
    blame: Blame | None = None
    delay_ms: int | None = None
    suppress: bool = False
    pause: Pause | None = None
    words: str = ""


_ROUTE_CODES: Final = frozenset({530, 534, 535, 538})
"""RFC 4954 §6, RFC 3207 §4: the relay wants a login, or TLS, before it takes anything."""
_ROUTE_ENHANCED: Final = frozenset({"5.4.5"})
"""How Google's relay words a day's limit that is used up."""

HARD_CAUSES: Final = tuple(sorted(cause.value for cause in HARD))
"""Causes of bounces that say that there is no such mailbox: a list that has many of them is not clean."""


def of_reply(
    reply: Reply,
    *,
    deferrals: int,
    speaker: Speaker = Speaker.RECEIVER,
    provider: str = "",
    recipient: str = "",
    senders: tuple[str, ...] = (),
) -> Outcome:
    """Return what a reply means for a touch.

    Args:
        reply: The reply, and the phase of the transaction that it answers.
        deferrals: How often the touch was deferred before.
        speaker: Whether a mail host of the recipient's domain replied, or the relay that the operator named.
        provider: Name of the mailbox provider, where it is a known one.
        recipient: The address that the message is for.
        senders: The addresses that it is sent from.
    """
    if reply.positive:
        return _of_positive(reply)
    if reply.phase in (Phase.CONNECT, Phase.EHLO, Phase.TLS, Phase.AUTH):
        # Nothing was said about this message: no session can be opened on this route.
        return route_down(str(reply))
    if reply.code in _ROUTE_CODES or reply.enhanced in _ROUTE_ENHANCED:
        return route_down(str(reply))
    said = classify(
        Statement(
            text=reply.text,
            code=reply.code,
            status=reply.enhanced,
            phase=reply.phase,
            speaker=speaker,
            provider=provider,
            recipient=recipient,
            senders=senders,
        )
    )
    if speaker is Speaker.RELAY and _is_about_account(said, reply.phase):
        return _account_refused(reply, said)
    if said.temporary:
        return _deferred(f"{said.cause}, so far", deferrals, said.fault)
    if speaker is Speaker.RELAY and said.fault is Blame.HOST and reply.phase in (Phase.DATA, Phase.DOT):
        # The relay took the recipient and refuses the message for no reason that is known: it is not the recipient's.
        return Outcome(verdict=DeliveryVerdict.DEAD, cause=said.cause, blame=Blame.HOST)
    outcome = _refused(said, reply, known_provider=bool(provider))
    if outcome.verdict is DeliveryVerdict.BOUNCED and said.doubtful:
        return replace(outcome, words=words_for_all(reply.text, recipient, reply.enhanced))
    return outcome


def _is_about_account(said: Classification, phase: Phase) -> bool:
    """Whether a relay refuses our account there, our address, or our pace."""
    if said.cause in (Cause.RELAY_ACCOUNT, Cause.RELAYING, Cause.SENDER_NAME):
        return True
    return not said.temporary and (
        said.cause is Cause.RATE or (said.cause is Cause.SENDER_ADDRESS and phase is Phase.MAIL)
    )


def _account_refused(reply: Reply, said: Classification) -> Outcome:
    """Return what a relay's refusal of our account means: no touch ends, and the sender or the whole route waits."""
    names = said.cause is Cause.RELAY_ACCOUNT and names_sender(clean(reply.text))
    of_sender = not said.temporary and (names or said.cause is Cause.SENDER_ADDRESS)
    return Outcome(
        verdict=DeliveryVerdict.DEFER,
        cause=f"{said.cause}: {reply}"[:100],
        blame=Blame.SENDER if of_sender else Blame.US,
        delay_ms=MINUTE_MS,  # The pause holds it; when that ends, it goes soon.
        pause=Pause.SENDER if of_sender else Pause.ROUTE,
    )


def _refused(said: Classification, reply: Reply, *, known_provider: bool) -> Outcome:
    """Return what a permanent refusal means."""
    cause, by_policy = said.cause, (reply.enhanced or "").startswith("5.7.")
    match said.fault:
        case Blame.RECIPIENT if reply.phase is not Phase.MAIL:
            return Outcome(
                verdict=DeliveryVerdict.BOUNCED, cause=cause, blame=Blame.RECIPIENT, suppress=said.suppresses
            )
        case Blame.MESSAGE if cause is Cause.TOO_BIG:
            return Outcome(verdict=DeliveryVerdict.BOUNCED, cause=cause, blame=Blame.MESSAGE)
        case Blame.MESSAGE if not (cause is Cause.CONTENT and by_policy):
            return Outcome(verdict=DeliveryVerdict.DEAD, cause=cause, blame=Blame.MESSAGE)
        case Blame.US if cause is Cause.PROTOCOL:
            return Outcome(verdict=DeliveryVerdict.RETRY, cause=cause, blame=Blame.US)
        case Blame.HOST if reply.phase is not Phase.MAIL:
            return Outcome(verdict=DeliveryVerdict.BOUNCED, cause=cause, blame=Blame.HOST)
        case _:
            return Outcome(
                verdict=DeliveryVerdict.DEAD,
                cause=cause,
                blame=Blame.SENDER,
                pause=_pause(cause, by_policy, known_provider),
            )


def _pause(cause: Cause, by_policy: bool, known_provider: bool) -> Pause | None:
    """Return what is held back besides. One host of an unknown domain stops nothing but itself."""
    if not by_policy or cause is Cause.RELAYING:  # The receiver has no such domain: a matter of its own settings.
        return None
    if cause is Cause.SENDER_AUTHENTICATION and known_provider:
        return Pause.SENDER
    return Pause.SENDER_AT_PROVIDER


def _deferred(cause: str, deferrals: int, blame: Blame = Blame.HOST) -> Outcome:
    return Outcome(verdict=DeliveryVerdict.DEFER, cause=cause, blame=blame, delay_ms=_delay_ms(deferrals))


def _delay_ms(deferrals: int) -> int:
    return DEFERRAL_MS[min(deferrals, len(DEFERRAL_MS) - 1)]


def of_obstacle(obstacle: UnreachableReason, *, deferrals: int) -> Outcome:
    """Judge what stood between us and a domain. It never holds back the route: other domains have other hosts."""
    match obstacle:
        case UnreachableReason.TAKES_NO_MAIL:  # RFC 7505 §4.1: 5.1.10, at once
            return _undeliverable("domain takes no mail")
        case UnreachableReason.NO_SUCH_DOMAIN:  # RFC 3463 §3.2: 5.1.2
            return _undeliverable("no such domain")
        case UnreachableReason.NO_SUCH_HOST:
            # The domain is there, and its owner made a mistake that may be mended: it suppresses nobody.
            return Outcome(verdict=DeliveryVerdict.BOUNCED, cause="no such mail host", blame=Blame.HOST)
        case UnreachableReason.NOT_PUBLIC:
            # As Exim's ignore_target_hosts does: such a host is no host. What DNS says may be mended.
            return Outcome(verdict=DeliveryVerdict.BOUNCED, cause="no public mail host", blame=Blame.HOST)
        case UnreachableReason.LOOP:  # RFC 3463 §3.5: 5.4.6
            return Outcome(verdict=DeliveryVerdict.DEAD, cause="mail loops back", blame=Blame.US)
        case UnreachableReason.NO_ANSWER:
            return _deferred("DNS gives no answer", deferrals)
        case UnreachableReason.HOSTS_DOWN:
            return _deferred("mail hosts down", deferrals)
        case UnreachableReason.BUSY:
            delay_ms = BUSY_MS[min(deferrals, len(BUSY_MS) - 1)]
            return Outcome(verdict=DeliveryVerdict.DEFER, cause="mail hosts busy", blame=Blame.HOST, delay_ms=delay_ms)
        case UnreachableReason.POLICY:  # RFC 8461 §5: to be tried again
            return _deferred("TLS policy not met", deferrals)
        case other:
            assert_never(other)


def _undeliverable(cause: str) -> Outcome:
    return Outcome(verdict=DeliveryVerdict.BOUNCED, cause=cause, blame=Blame.RECIPIENT, suppress=True)


_ACCEPTED = Outcome(verdict=DeliveryVerdict.ACCEPTED, cause="accepted")


def _of_positive(reply: Reply) -> Outcome:
    if reply.phase is not Phase.DOT:
        # The server has come as far as to ask for more, and no message has left.
        return Outcome(verdict=DeliveryVerdict.RETRY, cause="protocol error", blame=Blame.US)
    if reply.code >= 300:
        return Outcome(verdict=DeliveryVerdict.UNKNOWN, cause="no clear word after the final dot", blame=Blame.HOST)
    return _ACCEPTED


def of_transport(error: TransportError) -> Outcome:
    """Judge a connection that could not be made, or was lost."""
    if error.unknown:
        return Outcome(verdict=DeliveryVerdict.UNKNOWN, cause="connection lost after the final dot", blame=Blame.HOST)
    if error.phase in (Phase.CONNECT, Phase.EHLO, Phase.TLS, Phase.AUTH):
        return route_down(error.reason)
    return Outcome(verdict=DeliveryVerdict.RETRY, cause=f"connection lost at {error.phase}", blame=Blame.HOST)


def route_down(reason: str) -> Outcome:
    """No session can be had: the touch waits with all others of the route, and no attempt is used."""
    return Outcome(
        verdict=DeliveryVerdict.DEFER,
        cause=f"route down: {reason}"[:100],
        blame=Blame.US,
        delay_ms=5_000,
        pause=Pause.ROUTE,
    )
