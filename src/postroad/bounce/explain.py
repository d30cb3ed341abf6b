"""Explains how a mail is parsed and classified, for operators and scripts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from postroad.bounce.classify import BounceClass, ClassifiedRecipient
from postroad.bounce.process import classify_mail
from postroad.bounce.readers import AttachedReports, ReadMail, ReadReports
from postroad.bounce.report import Envelope, MailKind
from postroad.bounce.report_mail import KIND as REPORTS
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.tls import TlsReport
from postroad.mail.token import TokenSigner


@dataclass(frozen=True, kw_only=True)
class ExplainedRecipient:
    """Verdict on one recipient, and the rule that gave it. ``address``: the original recipient, if known."""

    address: str | None
    status: str | None
    reply_code: int | None
    verdict: BounceClass
    rule: str


@dataclass(frozen=True, kw_only=True)
class ExplainedReport:
    """One DMARC or TLS report attached to a mail. ``problems``: the parts of it that cannot be parsed."""

    organisation: str
    report_id: str
    domain: str
    rows: int
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExplainedMail:
    """Explanation of one mail.

    Attributes:
        file: File of the mail.
        kind: Kind of the mail; `reports` for a mail with DMARC or TLS reports only.
        recipients: Verdicts on the recipients.
        touch: Touch of the first valid token; None if this installation signed none of the tokens.
        reports: Attached DMARC and TLS reports.
        not_read: For each attached report that cannot be parsed, the reason.
    """

    file: str
    kind: str
    recipients: tuple[ExplainedRecipient, ...]
    touch: int | None
    reports: tuple[ExplainedReport, ...] = ()
    not_read: tuple[str, ...] = ()


def explain(
    file: str,
    raw: bytes,
    envelope: Envelope,
    signer: TokenSigner | None,
    own: Collection[str] = (),
    *,
    read: ReadMail,
    read_reports: ReadReports | None = None,
) -> ExplainedMail:
    """Parse and classify one mail, without effects. Raises UnavailableError, as ``read`` does.

    Args:
        file: File of the mail.
        raw: The mail.
        envelope: Envelope of the mail.
        signer: Verifies tokens. None: tokens are ignored.
        own: Addresses of our own senders, in lower case.
        read: Parses the mail.
        read_reports: Parses attached reports, on every domain. None: attached reports are ignored.

    Returns:
        The explanation.
    """
    report, judgements, tokens = classify_mail(read(raw, envelope), signer, own)
    attached = AttachedReports()
    if report.carries_reports and read_reports is not None:
        attached = read_reports(raw, None)
    received: tuple[DmarcReport | TlsReport, ...] = (*attached.dmarc, *attached.tls)
    is_report = bool(received) and report.kind is MailKind.OTHER
    return ExplainedMail(
        file=file,
        kind=REPORTS if is_report else report.kind,
        recipients=tuple(
            _explain_recipient(judgement, _rule_of(attached) if is_report else judgement.rule)
            for judgement in judgements
        ),
        touch=tokens.match.touch_id if tokens.match is not None else None,
        reports=tuple(_explain_report(attachment) for attachment in received),
        not_read=attached.refused,
    )


def _explain_recipient(judgement: ClassifiedRecipient, rule: str) -> ExplainedRecipient:
    return ExplainedRecipient(
        address=judgement.reported.original or judgement.reported.address,
        status=judgement.reported.status,
        reply_code=judgement.reported.reply_code,
        verdict=judgement.verdict,
        rule=rule,
    )


def _explain_report(report: DmarcReport | TlsReport) -> ExplainedReport:
    return ExplainedReport(
        organisation=report.organisation,
        report_id=report.report_id,
        domain=report.domain,
        rows=len(report.rows),
        problems=report.problems,
    )


def _rule_of(attached: AttachedReports) -> str:
    kinds = [name for name, reports in (("DMARC", attached.dmarc), ("TLS", attached.tls)) if reports]
    return f"{' and '.join(kinds)} report"
