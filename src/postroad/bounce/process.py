"""Processes stored mail: parses, classifies and matches it, and applies its effects once, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from postroad.bounce.apply import Effect, EffectSource, apply_action, unsubscribe
from postroad.bounce.classify import BounceClass, ClassifiedRecipient, classify_recipients
from postroad.bounce.match import Match, MatchedBy, Tokens, addresses_of, verify_tokens
from postroad.bounce.policy import (
    REPLIED,
    BounceAction,
    History,
    judgement_for,
    mildest,
    policy,
    unsubscribed,
)
from postroad.bounce.readers import ReadMail
from postroad.bounce.reply import mark_reply, own_addresses
from postroad.bounce.report import Envelope, MailKind, ParsedMail
from postroad.bounce.report_mail import KIND as REPORTS
from postroad.mail.token import TokenSigner
from postroad.settings import BounceSettings, UnsubscribeScope
from postroad.store.bounce import (
    BounceEffectKind,
    BounceMail,
    MatchedTouch,
    add_effects,
    effects_of,
    finish_mail,
    lock_touch,
    mail_of,
    raw_of,
    soft_bounces_in_a_row,
    touches_sent_to,
)
from postroad.store.campaign import sender_addresses
from postroad.store.engine import read as open_read
from postroad.store.engine import write
from postroad.store.outcome import DeliveryOutcome, TouchOutcome


@dataclass(frozen=True, kw_only=True)
class ProcessedMail:
    """Result of the processing of one mail.

    Attributes:
        verdict: Final verdict.
        rule: Name of the rule that gave the verdict.
        touch_id: Touch that the mail is about.
        matched_by: How the touch was found.
        ended: Touches that ended, so that their jobs are to be cancelled.
        resolved: Touches whose final state is now known, although the queue may hold their jobs as uncertain.
        outcomes: Outcomes for metrics; empty if the mail was processed before.
        reports: Whether the mail's attached reports are still to be read.
    """

    verdict: BounceClass
    rule: str
    touch_id: int | None
    matched_by: MatchedBy | None
    ended: Sequence[int] = ()
    resolved: Sequence[int] = ()
    outcomes: Sequence[TouchOutcome] = ()
    reports: bool = False


class ClassifiedMail(NamedTuple):
    """A parsed mail or event, the judgement on each recipient, and the result for its tokens."""

    report: ParsedMail
    judgements: tuple[ClassifiedRecipient, ...]
    tokens: Tokens


def classify_mail(report: ParsedMail, signer: TokenSigner | None, own: Collection[str] = ()) -> ClassifiedMail:
    """Classify a parsed mail and verify its tokens.

    Args:
        report: The parsed mail.
        signer: Verifies tokens. None: tokens are ignored.
        own: Addresses of our own senders, in lower case, whose mail is not a reply.

    Returns:
        The mail, its judgements and its tokens.
    """
    tokens = Tokens(None, forged=False)
    if signer is not None:
        tokens = verify_tokens(report, signer)
        report = mark_reply(report, tokens.match, signer, own)
    judgements = classify_recipients(report)
    if tokens.match is not None and tokens.match.by is MatchedBy.UNSUBSCRIBE:
        judgements = unsubscribed(report, judgements)
    return ClassifiedMail(report, judgements, tokens)


@dataclass(frozen=True, kw_only=True)
class BounceRules:
    """Key and settings that decide on the effects of a mail. ``scope``: scope of an unsubscribe."""

    signer: TokenSigner
    settings: BounceSettings
    scope: UnsubscribeScope = UnsubscribeScope.EVERYWHERE


def process(
    engine: sa.Engine, digests: Sequence[str], *, rules: BounceRules, read: ReadMail, now: datetime
) -> list[ProcessedMail | None]:
    """Process stored mails in one transaction. Idempotent. Raises UnavailableError.

    A mail that was processed before keeps its effects, and its result is returned again. A mail that could not be
    parsed is parsed again. All mails are parsed before the transaction begins. A mail with DMARC or TLS reports that
    matches no touch stays unprocessed until `report_mail` has read the reports.

    Args:
        engine: The ledger's database.
        digests: Digests of the mails.
        rules: Key and settings.
        read: Parses a mail.
        now: Time of the effects.

    Returns:
        The result for each digest. None: no such mail is stored.
    """
    classified = _classify_waiting(engine, digests, rules, read)
    with write(engine) as connection:
        return [_process(connection, digest, classified.get(digest), rules, now) for digest in digests]


class _WaitingMail(NamedTuple):
    """A classified mail. ``recipients``: recipients to search a touch for, normalised as in the ledger."""

    mail: ClassifiedMail
    recipients: Sequence[str]


def _classify_waiting(
    engine: sa.Engine, digests: Sequence[str], rules: BounceRules, read: ReadMail
) -> dict[str, _WaitingMail]:
    """Parse and classify the unprocessed mails among these, one by one, without a lock in the database."""
    with open_read(engine) as connection:
        own = own_addresses(sender_addresses(connection))
        waiting = [mail for digest in dict.fromkeys(digests) if (mail := mail_of(connection, digest)) and _waits(mail)]
    results = {}
    for mail in waiting:
        with open_read(engine) as connection:
            raw = raw_of(connection, mail.digest)
        if raw is None:
            continue
        envelope = Envelope(mail_from=mail.mail_from, recipient=mail.recipient, source=mail.source)
        classified = classify_mail(read(raw, envelope), rules.signer, own)
        is_about_message = any(judgement.verdict in _ABOUT_A_MESSAGE for judgement in classified.judgements)
        has_token = classified.tokens.match is not None or classified.tokens.forged
        recipients = addresses_of(classified.report) if is_about_message and not has_token else []
        results[mail.digest] = _WaitingMail(classified, recipients)
    return results


_ABOUT_A_MESSAGE = (BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK, BounceClass.COMPLAINT)


def _waits(mail: BounceMail) -> bool:
    return (mail.processed_at is None and mail.kind != REPORTS) or mail.verdict == BounceClass.UNREADABLE


def _process(
    connection: sa.Connection, digest: str, waiting: _WaitingMail | None, rules: BounceRules, now: datetime
) -> ProcessedMail | None:
    mail = mail_of(connection, digest, lock=True)
    if mail is None:
        return None
    if waiting is None or not _waits(mail):
        return _result_of(mail, effects_of(connection, mail.digest))
    report, judgements, tokens = waiting.mail
    match = tokens.match or _match_by_recipient(connection, waiting.recipients, mail.received_at, rules.settings)
    touch = lock_touch(connection, match.touch_id) if match is not None else None
    judgement = judgement_for(judgements, touch.address, report.sender) if touch is not None else mildest(judgements)
    source = EffectSource(digest, mail.source, now)
    effects: list[Effect] = []
    if touch is not None and match is not None:
        is_reply = report.kind is MailKind.REPLY
        action = REPLIED if is_reply else _action_for(connection, touch, judgement, match.by, rules, now)
        judgement, effects = apply_action(connection, touch, action, judgement, source, rules.scope)
    elif match is not None and match.by is MatchedBy.UNSUBSCRIBE:
        # The touch was deleted, and its unsubscribe address is still valid.
        effects = unsubscribe(connection, match.touch_id, source, rules.scope, deleted=True)
    add_effects(connection, digest, effects, now)
    mail.processed_at, mail.kind = now, report.kind.value
    if touch is None and report.carries_reports:
        mail.processed_at, mail.kind = None, REPORTS
    mail.verdict, mail.rule = judgement.verdict.value, judgement.rule[:100]
    mail.touch_id = touch.id if touch is not None else None
    mail.matched_by = match.by.value if match is not None and touch is not None else None
    finish_mail(connection, mail)
    return replace(_result_of(mail, effects), outcomes=_outcomes(touch, judgement.verdict, effects))


def _outcomes(touch: MatchedTouch | None, verdict: BounceClass, effects: Sequence[Effect]) -> tuple[TouchOutcome, ...]:
    outcomes = [TouchOutcome(touch_id, _OUTCOMES[kind]) for kind, touch_id, _ in effects if kind in _OUTCOMES]
    if touch is not None and verdict is BounceClass.COMPLAINT:
        outcomes.append(TouchOutcome(touch.id, DeliveryOutcome.COMPLAINED))
    return tuple(outcomes)


_OUTCOMES = {
    BounceEffectKind.TOUCH_BOUNCED: DeliveryOutcome.BOUNCED,
    BounceEffectKind.TOUCH_ACCEPTED: DeliveryOutcome.ACCEPTED,
}


def _result_of(mail: BounceMail, effects: Sequence[Effect]) -> ProcessedMail:
    ended = (BounceEffectKind.TOUCH_SUPPRESSED, BounceEffectKind.TOUCH_CANCELLED)
    return ProcessedMail(
        verdict=BounceClass(mail.verdict or BounceClass.UNRELATED),
        rule=mail.rule or "",
        touch_id=mail.touch_id,
        matched_by=MatchedBy(mail.matched_by) if mail.matched_by else None,
        ended=[touch_id for kind, touch_id, _ in effects if kind in ended],
        resolved=[touch_id for kind, touch_id, _ in effects if kind in _OUTCOMES],
        reports=mail.kind == REPORTS and mail.processed_at is None,
    )


def _match_by_recipient(
    connection: sa.Connection, addresses: Sequence[str], received_at: datetime, settings: BounceSettings
) -> Match | None:
    """Return the only touch that was sent to one of these recipients within the window. None if there are several."""
    if not addresses:
        return None
    since = received_at - timedelta(milliseconds=settings.match_window_ms)
    touch_ids = touches_sent_to(connection, addresses, since=since, until=received_at, limit=2)
    return Match(touch_ids[0], MatchedBy.RECIPIENT) if len(touch_ids) == 1 else None


def _action_for(
    connection: sa.Connection,
    touch: MatchedTouch,
    judgement: ClassifiedRecipient,
    by: MatchedBy,
    rules: BounceRules,
    now: datetime,
) -> BounceAction:
    settings = rules.settings
    since = now - timedelta(milliseconds=settings.soft_window_ms)
    history = History(soft_in_a_row=soft_bounces_in_a_row(connection, touch, since))
    return policy(history, judgement, by, soft_limit=settings.soft_limit, act_on_unsigned=settings.act_on_unsigned)
