"""Carry out what follows from mail that came back: all of it in one transaction, and once for each mail."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from msgspec import structs

from postroad.bounce.judge import BounceClass, Classified, judge
from postroad.bounce.match import Match, MatchedBy, Tokens, addresses_of, read_tokens
from postroad.bounce.policy import (
    REPLIED,
    BounceAction,
    History,
    about_sender,
    judgement_for,
    mildest,
    policy,
    unsubscribed,
)
from postroad.bounce.reading import Read
from postroad.bounce.receivers import KIND as REPORTS
from postroad.bounce.reply import RULE, answered, own_addresses
from postroad.bounce.report import Envelope, MailKind, ParsedMail
from postroad.mail.token import TokenSigner
from postroad.settings import BounceSettings, UnsubscribeScope
from postroad.store.bounce import (
    BounceEffectKind,
    BounceMail,
    MatchedTouch,
    add_effects,
    effects_of,
    end_waiting_of,
    finish_mail,
    mail_of,
    move_touch,
    raw_of,
    soft_bounces_in_a_row,
    take_touch,
    touches_sent_to,
)
from postroad.store.campaign import OnReply, sender_addresses
from postroad.store.engine import read as reading
from postroad.store.engine import write
from postroad.store.ledger import TouchState, end_sequence_of, note_reply
from postroad.store.outcome import DeliveryOutcome, TouchOutcome
from postroad.store.same_words import blame_sender_for, words_key
from postroad.store.suppression import SuppressionReason, strengthen, suppress
from postroad.store.types import UtcDateTime
from postroad.store.unsubscribe import unsubscribe_touch

Change = tuple[BounceEffectKind, int, str]


class EffectSource(NamedTuple):
    """The mail or event that things follow from, what brought it, and when they do."""

    digest: str
    source: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Processed:
    """What one mail came to. ``ended``: touches whose jobs have no place on the queue any more.

    ``known``: touches of which the queue may believe that nobody knows what became of them. ``outcomes``: what to
    count; nothing of a mail that was processed before. ``reports``: its reports wait to be read.
    """

    verdict: BounceClass
    rule: str
    touch_id: int | None
    matched_by: MatchedBy | None
    ended: Sequence[int] = ()
    known: Sequence[int] = ()
    outcomes: Sequence[TouchOutcome] = ()
    reports: bool = False


class JudgedMail(NamedTuple):
    """What a mail or an event says, the judgement on each recipient, and what its tokens say."""

    report: ParsedMail
    judgements: tuple[Classified, ...]
    tokens: Tokens


def judged(report: ParsedMail, signer: TokenSigner | None, own: Collection[str] = ()) -> JudgedMail:
    """Judge what was read. Without a signer its tokens say nothing.

    ``own``: addresses that we write from, so that what we wrote ourselves is not taken for a reply.
    """
    tokens = Tokens(None, forged=False)
    if signer is not None:
        tokens = read_tokens(report, signer)
        report = answered(report, tokens.match, signer, own)
    judgements = judge(report)
    if tokens.match is not None and tokens.match.by is MatchedBy.UNSUBSCRIBE:
        judgements = unsubscribed(report, judgements)
    return JudgedMail(report, judgements, tokens)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decides on what follows, beside the mail itself. ``scope``: what an unsubscribe is from."""

    signer: TokenSigner
    settings: BounceSettings
    scope: UnsubscribeScope = UnsubscribeScope.EVERYWHERE


def process(
    engine: sa.Engine, digests: Sequence[str], *, rules: Rules, read: Read, now: datetime
) -> list[Processed | None]:
    """Judge kept mails and carry out what follows, all of it or nothing. None: there is no such mail.

    Of one that was judged before nothing changes, and what it came to is returned again; but one that could not be read
    is read again. All mails are read before the transaction begins: it applies results of a bounded size.
    A mail with reports of receivers, and about no message of ours, goes on waiting for `receivers`.
    Raises UnavailableError.
    """
    results = judge_waiting(engine, digests, rules, read)
    with write(engine) as connection:
        return [_process(connection, digest, results.get(digest), rules, now) for digest in digests]


class _Result(NamedTuple):
    """``named``: recipients by whom a touch may be looked for, as the ledger spells them."""

    judged: JudgedMail
    named: Sequence[str]


def judge_waiting(engine: sa.Engine, digests: Sequence[str], rules: Rules, read: Read) -> dict[str, _Result]:
    """Read and judge those of these mails that wait for it, each by itself, while nothing in the database is locked."""
    with reading(engine) as connection:
        own = own_addresses(sender_addresses(connection))
        waiting = [mail for digest in dict.fromkeys(digests) if (mail := mail_of(connection, digest)) and _waits(mail)]
    results = {}
    for mail in waiting:
        with reading(engine) as connection:
            raw = raw_of(connection, mail.digest)
        if raw is None:
            continue
        envelope = Envelope(mail_from=mail.mail_from, recipient=mail.recipient, source=mail.source)
        one = judged(read(raw, envelope), rules.signer, own)
        about_a_message = any(judgement.verdict in _ABOUT_A_MESSAGE for judgement in one.judgements)
        unnamed = one.tokens.match is not None or one.tokens.forged or not about_a_message
        results[mail.digest] = _Result(one, [] if unnamed else addresses_of(one.report))
    return results


def _waits(mail: BounceMail) -> bool:
    return (mail.processed_at is None and mail.kind != REPORTS) or mail.verdict == BounceClass.UNREADABLE


def _process(
    connection: sa.Connection, digest: str, result: _Result | None, rules: Rules, now: datetime
) -> Processed | None:
    mail = mail_of(connection, digest, lock=True)
    if mail is None:
        return None
    if result is None or not _waits(mail):
        return _as_it_was(connection, mail)
    report, judgements, tokens = result.judged
    match = tokens.match or _by_recipient_and_time(connection, result.named, mail.received_at, rules.settings)
    touch = take_touch(connection, match.touch_id) if match is not None else None
    judgement = judgement_for(judgements, touch.address, report.sender) if touch is not None else mildest(judgements)
    changes: list[Change] = []
    if touch is not None and match is not None:
        what = (
            REPLIED if report.kind is MailKind.REPLY else _follows(connection, touch, judgement, match.by, rules, now)
        )
        cause = EffectSource(digest, mail.source, now)
        words = words_key(touch.receiver, judgement.words) if judgement.words else None
        changes = _settle(connection, touch, what, judgement, cause, words)
        if words is not None and blame_sender_for(connection, [words], now):
            judgement, what = about_sender(judgement), structs.replace(what, suppress=None)
        changes += _carry_out(connection, touch, what, cause, rules.scope)
    elif match is not None and match.by is MatchedBy.UNSUBSCRIBE:
        # The touch was deleted, and its link still holds.
        changes = _unsubscribe(
            connection, match.touch_id, EffectSource(digest, mail.source, now), rules.scope, past=True
        )
    add_effects(connection, digest, changes, now)
    mail.processed_at, mail.kind = now, report.kind.value
    if touch is None and report.carries_reports:
        mail.processed_at, mail.kind = None, REPORTS
    mail.verdict, mail.rule = judgement.verdict.value, judgement.rule[:100]
    mail.touch_id = touch.id if touch is not None else None
    mail.matched_by = match.by.value if match is not None and touch is not None else None
    finish_mail(connection, mail)
    return replace(_processed(mail, changes), outcomes=_outcomes(touch, judgement.verdict, changes))


def _outcomes(touch: MatchedTouch | None, verdict: BounceClass, changes: Sequence[Change]) -> tuple[TouchOutcome, ...]:
    found = [TouchOutcome(id_, _OUTCOMES[kind]) for kind, id_, _ in changes if kind in _OUTCOMES]
    if touch is not None and verdict is BounceClass.COMPLAINT:
        found.append(TouchOutcome(touch.id, DeliveryOutcome.COMPLAINED))
    return tuple(found)


_OUTCOMES = {
    BounceEffectKind.TOUCH_BOUNCED: DeliveryOutcome.BOUNCED,
    BounceEffectKind.TOUCH_ACCEPTED: DeliveryOutcome.ACCEPTED,
}


def _as_it_was(connection: sa.Connection, mail: BounceMail) -> Processed:
    return _processed(mail, effects_of(connection, mail.digest))


def _processed(mail: BounceMail, changes: Sequence[Change]) -> Processed:
    ended = (BounceEffectKind.TOUCH_SUPPRESSED, BounceEffectKind.TOUCH_CANCELLED)
    moved = (BounceEffectKind.TOUCH_BOUNCED, BounceEffectKind.TOUCH_ACCEPTED)
    return Processed(
        verdict=BounceClass(mail.verdict or BounceClass.UNRELATED),
        rule=mail.rule or "",
        touch_id=mail.touch_id,
        matched_by=MatchedBy(mail.matched_by) if mail.matched_by else None,
        ended=[touch_id for kind, touch_id, _ in changes if kind in ended],
        known=[touch_id for kind, touch_id, _ in changes if kind in moved],
        reports=mail.kind == REPORTS and mail.processed_at is None,
    )


_ABOUT_A_MESSAGE = (BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK, BounceClass.COMPLAINT)


def _by_recipient_and_time(
    connection: sa.Connection, addresses: Sequence[str], received_at: datetime, settings: BounceSettings
) -> Match | None:
    """The one touch that went to one of these recipients, within the window. Of two it is neither."""
    if not addresses:
        return None
    since = received_at - timedelta(milliseconds=settings.match_window_ms)
    found = touches_sent_to(connection, addresses, since=since, until=received_at, limit=2)
    return Match(found[0], MatchedBy.RECIPIENT) if len(found) == 1 else None


def _follows(
    connection: sa.Connection, touch: MatchedTouch, judgement: Classified, by: MatchedBy, rules: Rules, now: datetime
) -> BounceAction:
    settings = rules.settings
    since = now - timedelta(milliseconds=settings.soft_window_ms)
    history = History(soft_in_a_row=soft_bounces_in_a_row(connection, touch, since))
    return policy(history, judgement, by, soft_limit=settings.soft_limit, act_on_unsigned=settings.act_on_unsigned)


def _settle(
    connection: sa.Connection,
    touch: MatchedTouch,
    what: BounceAction,
    judgement: Classified,
    cause: EffectSource,
    words: str | None,
) -> list[Change]:
    """Move the touch to what came of it, and note why. ``words``: key of the words, see `store.same_words`."""
    said = judgement.reported.diagnostic or judgement.rule
    if what.touch is None or not move_touch(connection, touch.id, what.touch, said, cause.at):
        return []
    _note(connection, touch, what, judgement, cause, words)
    kind = BounceEffectKind.TOUCH_BOUNCED if what.touch is TouchState.BOUNCED else BounceEffectKind.TOUCH_ACCEPTED
    return [(kind, touch.id, f"was {touch.state}: {judgement.rule}")]


def _carry_out(
    connection: sa.Connection, touch: MatchedTouch, what: BounceAction, cause: EffectSource, scope: UnsubscribeScope
) -> list[Change]:
    """End the sequence and suppress, as far as that follows."""
    changes: list[Change] = []
    if what.replied:
        changes += _end_sequence(connection, touch, cause)
    match what.suppress:
        case None:
            pass
        case SuppressionReason.UNSUBSCRIBE:
            changes += _unsubscribe(connection, touch.id, cause, scope)
        case reason:
            changes += _suppress(connection, touch, reason, cause)
    return changes


def _unsubscribe(
    connection: sa.Connection, touch_id: int, cause: EffectSource, scope: UnsubscribeScope, *, past: bool = False
) -> list[Change]:
    """As one-click does, so that it is the same whichever way they chose. ``past``: there is no row for an effect."""
    reason = SuppressionReason.UNSUBSCRIBE.value
    done = unsubscribe_touch(connection, touch_id, f"by {cause.source}, {cause.digest[:16]}", cause.at, scope)
    if done is None:
        return []
    new = done.suppressed and not past
    first: list[Change] = [(BounceEffectKind.ADDRESS_SUPPRESSED, touch_id, reason)] if new else []
    return first + [(BounceEffectKind.TOUCH_SUPPRESSED, other, reason) for other in done.ended]


def _suppress(
    connection: sa.Connection, touch: MatchedTouch, reason: SuppressionReason, cause: EffectSource
) -> list[Change]:
    source = f"{cause.source} {cause.digest[:16]}, touch {touch.id}"
    new = suppress(connection, [touch.address], reason, source, cause.at)
    if reason is SuppressionReason.COMPLAINT:
        strengthen(connection, touch.address, reason, source)
    changes: list[Change] = [(BounceEffectKind.ADDRESS_SUPPRESSED, touch.id, reason.value)] if new else []
    ended = end_waiting_of(connection, touch.recipient_id, cause.at)
    return changes + [(BounceEffectKind.TOUCH_SUPPRESSED, other, reason.value) for other in ended]


def _end_sequence(connection: sa.Connection, touch: MatchedTouch, cause: EffectSource) -> list[Change]:
    note_reply(connection, touch.id, cause.digest, cause.at)
    changes: list[Change] = [(BounceEffectKind.REPLIED, touch.id, RULE)]
    if touch.on_reply is OnReply.CONTINUE:
        return changes
    ended = end_sequence_of(connection, touch.campaign_id, touch.recipient_id, RULE, cause.at)
    return changes + [(BounceEffectKind.TOUCH_CANCELLED, other, RULE) for other in ended]


def _note(
    connection: sa.Connection,
    touch: MatchedTouch,
    what: BounceAction,
    judgement: Classified,
    cause: EffectSource,
    words: str | None,
) -> None:
    """One row of what happened to the touch, beside those of its delivery."""
    reported = judgement.reported
    statement = sa.text(
        "INSERT INTO delivery_event "
        "(uid, touch_id, state, at, attempt, reply_code, enhanced_code, reply, cause, blame, words) "
        "VALUES (:uid, :touch_id, :state, :at, 0, :reply_code, :enhanced_code, :reply, :cause, :blame, :words) "
        "ON CONFLICT (uid) DO NOTHING"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    values = {
        "uid": f"bounce:{cause.digest}",
        "touch_id": touch.id,
        "state": what.touch,
        "at": cause.at,
        "reply_code": reported.reply_code,
        "enhanced_code": reported.status,
        "reply": reported.diagnostic[:500] or None,
        "cause": f"came back: {judgement.cause or judgement.rule}"[:100],
        "blame": what.blame,
        "words": words,
    }
    connection.execute(statement, values)
