"""Classifies replies and failed connections as results of deliveries: pure functions.

`postroad.classify` finds the cause of a reply. A refusal that is the sender's fault never counts against the recipient.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, assert_never

from msgspec.structs import replace

from postroad.classify.cause import HARD_CAUSES as HARD
from postroad.classify.cause import Cause
from postroad.classify.classify import Classification, classify
from postroad.classify.relay import names_sender
from postroad.classify.statement import Speaker, Statement
from postroad.classify.text import clean, words_for_all
from postroad.delivery.result import MAX_CAUSE, DeliveryResult, Pause
from postroad.errors import Blame
from postroad.smtp.errors import TransportError
from postroad.smtp.reply import Phase, Reply
from postroad.store.ledger import TouchState
from postroad.store.same_words import words_key

MINUTE_MS = 60_000
RETRY_DELAYS_MS = (30 * MINUTE_MS, 30 * MINUTE_MS, 120 * MINUTE_MS, 180 * MINUTE_MS)
"""Delay after the first, second, … deferral; the last repeats. RFC 5321 §4.5.4.1: 30 min, later 2–3 h."""

BUSY_MS = (MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS)
"""Delay after the first, second, … time that all slots of a slow destination were taken; the last repeats."""

ROUTE_DOWN: Final = "route down"
"""Begin of the cause of a deferral because no session of the route can be opened."""

ROUTE_DELAY_MS = 5_000
"""Delay of a touch whose route is down. The pause of the route holds it longer."""


class UnreachableReason(StrEnum):
    """Why no mail host of the domain could be reached; no SMTP transaction was started."""

    TAKES_NO_MAIL = "takes no mail"  # null MX
    NO_SUCH_DOMAIN = "no such domain"
    NO_SUCH_HOST = "no such host"  # its mail hosts have no address
    LOOP = "loop"  # its best mail host is this machine
    NO_ANSWER = "no answer"  # of DNS
    NOT_PUBLIC = "not public"  # its mail hosts have loopback or private addresses only
    HOSTS_DOWN = "hosts down"
    BUSY = "busy"  # its mail hosts are so slow that all their slots are taken
    POLICY = "policy"  # no host satisfies the domain's own policy


class NoMailHostError(Exception):
    """No SMTP transaction was started. ``reason``: details. ``reply``: the refusal of a host, if one replied."""

    def __init__(self, kind: UnreachableReason, reason: str, *, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.reply = reply


_OPENING: Final = (Phase.CONNECT, Phase.EHLO, Phase.TLS, Phase.AUTH)
_ROUTE_CODES: Final = frozenset({530, 534, 535, 538})
"""RFC 4954 §6, RFC 3207 §4: the relay requires a login, or TLS, before it accepts anything."""
_ROUTE_ENHANCED: Final = frozenset({"5.4.5"})
"""Google's relay: the limit of the day is used up."""

HARD_CAUSES: Final = tuple(sorted(cause.value for cause in HARD))
"""Causes that mean "no such mailbox". A high share of them indicates a bad list."""


def classify_reply(
    reply: Reply,
    *,
    deferrals: int,
    speaker: Speaker = Speaker.RECEIVER,
    provider: str = "",
    recipient: str = "",
    senders: tuple[str, ...] = (),
    receiver: str = "",
) -> DeliveryResult:
    """Return the result that a reply means.

    Args:
        reply: The reply, and the phase of the transaction that it answers.
        deferrals: How often the touch was deferred before.
        speaker: Whether a mail host of the recipient's domain replied, or the relay that the operator named.
        provider: Name of the mailbox provider, where it is a known one.
        recipient: The address that the message is for.
        senders: The addresses that it is sent from.
        receiver: Name of the provider, the site or the relay that replied, for the key of its words.
    """
    return replace(
        _classify_reply(reply, deferrals, speaker, provider, recipient, senders, receiver),
        reply_code=reply.code,
        enhanced_code=reply.enhanced,
        reply=str(reply),
    )


def _classify_reply(
    reply: Reply,
    deferrals: int,
    speaker: Speaker,
    provider: str,
    recipient: str,
    senders: tuple[str, ...],
    receiver: str,
) -> DeliveryResult:
    if reply.positive:
        return _positive(reply)
    if reply.phase in _OPENING or reply.code in _ROUTE_CODES or reply.enhanced in _ROUTE_ENHANCED:
        # The reply is about the session, not about this message.
        return route_down(str(reply))
    classified = classify(
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
    if speaker is Speaker.RELAY and _is_about_account(classified, reply.phase):
        return _account_refused(reply, classified)
    if classified.temporary:
        return _deferred(f"{classified.cause}, so far", deferrals, classified.fault)
    if speaker is Speaker.RELAY and classified.fault is Blame.HOST and reply.phase in (Phase.DATA, Phase.DOT):
        # The relay accepted the recipient and refuses the message for an unknown reason: it is not the recipient's.
        return DeliveryResult(state=TouchState.DEAD, cause=classified.cause, blame=Blame.HOST)
    result = _refused(classified, reply, known_provider=bool(provider))
    if result.state is TouchState.BOUNCED and classified.doubtful:
        words = words_for_all(reply.text, recipient, reply.enhanced)
        return replace(result, words=words_key(receiver, words) if words else "")
    return result


def _is_about_account(classified: Classification, phase: Phase) -> bool:
    """Whether a relay refuses our account, our address or our rate."""
    if classified.cause in (Cause.RELAY_ACCOUNT, Cause.RELAYING, Cause.SENDER_NAME):
        return True
    return not classified.temporary and (
        classified.cause is Cause.RATE or (classified.cause is Cause.SENDER_ADDRESS and phase is Phase.MAIL)
    )


def _account_refused(reply: Reply, classified: Classification) -> DeliveryResult:
    """Return the result of a relay's refusal of our account: no touch ends, and the sender or the route is paused."""
    names = classified.cause is Cause.RELAY_ACCOUNT and names_sender(clean(reply.text))
    of_sender = not classified.temporary and (names or classified.cause is Cause.SENDER_ADDRESS)
    return DeliveryResult(
        state=TouchState.DEFERRED,
        cause=f"{classified.cause}: {reply}"[:MAX_CAUSE],
        blame=Blame.SENDER if of_sender else Blame.US,
        delay_ms=MINUTE_MS,  # The pause holds it. After the pause it is sent soon.
        pause=Pause.SENDER if of_sender else Pause.ROUTE,
    )


def _refused(classified: Classification, reply: Reply, *, known_provider: bool) -> DeliveryResult:
    """Return the result of a permanent refusal."""
    cause, by_policy = classified.cause, (reply.enhanced or "").startswith("5.7.")
    match classified.fault:
        case Blame.RECIPIENT if reply.phase is not Phase.MAIL:
            return DeliveryResult(
                state=TouchState.BOUNCED, cause=cause, blame=Blame.RECIPIENT, suppress=classified.suppresses
            )
        case Blame.MESSAGE if cause is Cause.TOO_BIG:
            return DeliveryResult(state=TouchState.BOUNCED, cause=cause, blame=Blame.MESSAGE)
        case Blame.MESSAGE if not (cause is Cause.CONTENT and by_policy):
            return DeliveryResult(state=TouchState.DEAD, cause=cause, blame=Blame.MESSAGE)
        case Blame.US if cause is Cause.PROTOCOL:
            return DeliveryResult(state=TouchState.DEFERRED, cause=cause, blame=Blame.US)
        case Blame.HOST if reply.phase is not Phase.MAIL:
            return DeliveryResult(state=TouchState.BOUNCED, cause=cause, blame=Blame.HOST)
        case _:
            return DeliveryResult(
                state=TouchState.DEAD,
                cause=cause,
                blame=Blame.SENDER,
                pause=_pause(cause, by_policy, known_provider),
            )


def _pause(cause: Cause, by_policy: bool, known_provider: bool) -> Pause | None:
    """Return what a refusal of the sender pauses. A host of an unknown domain pauses only mail to itself."""
    if not by_policy or cause is Cause.RELAYING:  # The receiver does not serve the domain: a matter of its settings.
        return None
    if cause is Cause.SENDER_AUTHENTICATION and known_provider:
        return Pause.SENDER
    return Pause.SENDER_AT_PROVIDER


def _deferred(cause: str, deferrals: int, blame: Blame = Blame.HOST) -> DeliveryResult:
    delay_ms = RETRY_DELAYS_MS[min(deferrals, len(RETRY_DELAYS_MS) - 1)]
    return DeliveryResult(state=TouchState.DEFERRED, cause=cause, blame=blame, delay_ms=delay_ms)


def classify_unreachable(error: NoMailHostError, *, deferrals: int) -> DeliveryResult:
    """Return the result when no mail host could be reached. It never pauses the route: other domains have other hosts.

    Args:
        error: Why no mail host could be reached.
        deferrals: How often the touch was deferred before.
    """
    return _with_reply(_unreachable(error.kind, deferrals), error)


def _unreachable(kind: UnreachableReason, deferrals: int) -> DeliveryResult:
    match kind:
        case UnreachableReason.TAKES_NO_MAIL:  # RFC 7505 §4.1: 5.1.10, at once
            return _undeliverable("domain takes no mail")
        case UnreachableReason.NO_SUCH_DOMAIN:  # RFC 3463 §3.2: 5.1.2
            return _undeliverable("no such domain")
        case UnreachableReason.NO_SUCH_HOST:
            # The domain exists, and its owner may repair its DNS: no address is suppressed.
            return DeliveryResult(state=TouchState.BOUNCED, cause="no such mail host", blame=Blame.HOST)
        case UnreachableReason.NOT_PUBLIC:
            # As Exim's ignore_target_hosts: such a host counts as missing. The owner may repair its DNS.
            return DeliveryResult(state=TouchState.BOUNCED, cause="no public mail host", blame=Blame.HOST)
        case UnreachableReason.LOOP:  # RFC 3463 §3.5: 5.4.6
            return DeliveryResult(state=TouchState.DEAD, cause="mail loops back", blame=Blame.US)
        case UnreachableReason.NO_ANSWER:
            return _deferred("DNS gives no answer", deferrals)
        case UnreachableReason.HOSTS_DOWN:
            return _deferred("mail hosts down", deferrals)
        case UnreachableReason.BUSY:
            return DeliveryResult(
                state=TouchState.DEFERRED,
                cause="mail hosts busy",
                blame=Blame.HOST,
                delay_ms=BUSY_MS[min(deferrals, len(BUSY_MS) - 1)],
            )
        case UnreachableReason.POLICY:  # RFC 8461 §5: to be tried again
            return _deferred("TLS policy not met", deferrals)
        case other:
            assert_never(other)


def _undeliverable(cause: str) -> DeliveryResult:
    return DeliveryResult(state=TouchState.BOUNCED, cause=cause, blame=Blame.RECIPIENT, suppress=True)


def _positive(reply: Reply) -> DeliveryResult:
    if reply.phase is not Phase.DOT:
        # The server asks for more, and the message was not sent.
        return DeliveryResult(state=TouchState.DEFERRED, cause="protocol error", blame=Blame.US)
    if reply.code >= 300:
        return DeliveryResult(state=TouchState.UNKNOWN, cause="no clear word after the final dot", blame=Blame.HOST)
    return DeliveryResult(state=TouchState.ACCEPTED, cause="accepted")


def classify_transport_error(error: TransportError) -> DeliveryResult:
    """Return the result when a connection could not be opened, or was lost."""
    if error.unknown:
        result = DeliveryResult(state=TouchState.UNKNOWN, cause="connection lost after the final dot", blame=Blame.HOST)
    elif error.phase in _OPENING:
        result = route_down(error.reason)
    else:
        result = DeliveryResult(state=TouchState.DEFERRED, cause=f"connection lost at {error.phase}", blame=Blame.HOST)
    return _with_reply(result, error)


def _with_reply(result: DeliveryResult, error: TransportError | NoMailHostError) -> DeliveryResult:
    code, enhanced = (error.reply.code, error.reply.enhanced) if error.reply is not None else (None, None)
    return replace(result, reply_code=code, enhanced_code=enhanced, reply=error.reason)


def route_down(reason: str) -> DeliveryResult:
    """Return the result when no session can be opened: the touch waits with its route, and no attempt is counted."""
    return DeliveryResult(
        state=TouchState.DEFERRED,
        cause=f"{ROUTE_DOWN}: {reason}"[:MAX_CAUSE],
        blame=Blame.US,
        delay_ms=ROUTE_DELAY_MS,
        pause=Pause.ROUTE,
    )
