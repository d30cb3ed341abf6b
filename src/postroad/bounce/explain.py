"""How a mail was read, and why: for people who doubt a verdict, and for scripts that count."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from postroad.bounce.effects import judged
from postroad.bounce.judge import BounceClass
from postroad.bounce.reading import Read, ReadReports, Reports
from postroad.bounce.receivers import KIND as REPORTS
from postroad.bounce.report import Envelope, MailKind
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.tls import TlsReport
from postroad.mail.token import TokenSigner


@dataclass(frozen=True, kw_only=True)
class ExplainedRecipient:
    """One recipient, by the address that was written to where that is told, the verdict, and the rule that gave it."""

    address: str | None
    status: str | None
    reply_code: int | None
    verdict: BounceClass
    rule: str


@dataclass(frozen=True, kw_only=True)
class ExplainedReport:
    """One DMARC or TLS report attached to a mail. ``problems``: what of it could not be read."""

    organisation: str
    report_id: str
    domain: str
    rows: int
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One mail. ``kind``: what it is; `reports`: it carries reports of receivers.

    ``touch``: what its tokens say; None where there is none that this installation signed.
    ``reports``: those attached to it. ``not_read``: attached reports that cannot be read, and why.
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
    read: Read,
    read_reports: ReadReports | None = None,
) -> Explained:
    """Read and judge one mail. Nothing follows from it.

    ``own``: addresses that we write from. ``read_reports``: reads attached reports, of every domain; None: they are
    left out. Raises UnavailableError, as ``read`` does.
    """
    report, judgements, tokens = judged(read(raw, envelope), signer, own)
    attached = Reports()
    if report.carries_reports and read_reports is not None:
        attached = read_reports(raw, None)
    received: tuple[DmarcReport | TlsReport, ...] = (*attached.dmarc, *attached.tls)
    is_report = bool(received) and report.kind is MailKind.OTHER
    return Explained(
        file=file,
        kind=REPORTS if is_report else report.kind,
        recipients=tuple(
            ExplainedRecipient(
                address=one.reported.original or one.reported.address,
                status=one.reported.status,
                reply_code=one.reported.reply_code,
                verdict=one.verdict,
                rule=_rule_of(attached) if is_report else one.rule,
            )
            for one in judgements
        ),
        touch=tokens.match.touch_id if tokens.match is not None else None,
        reports=tuple(
            ExplainedReport(
                organisation=one.organisation,
                report_id=one.report_id,
                domain=one.domain,
                rows=len(one.rows),
                problems=one.problems,
            )
            for one in received
        ),
        not_read=attached.refused,
    )


def _rule_of(attached: Reports) -> str:
    """Return what kind of reports a mail carries."""
    kinds = [name for name, found in (("DMARC", attached.dmarc), ("TLS", attached.tls)) if found]
    return f"{' and '.join(kinds)} report"
