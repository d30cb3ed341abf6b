"""Formats a report of a domain's health as Markdown, for a file and for the page of a run."""

from __future__ import annotations

from collections.abc import Sequence

from postroad.dns.finding import Finding, RecordVerdict
from postroad.dns.health import Change
from postroad.printable import escape_active_markdown, printable

_MARKS = {
    RecordVerdict.PASS: "✓",
    RecordVerdict.INFO: "·",
    RecordVerdict.UNKNOWN: "?",
    RecordVerdict.WARN: "!",
    RecordVerdict.FAIL: "✗",
}


def markdown(domain: str, verdict: RecordVerdict, findings: Sequence[Finding], change: Change | None = None) -> str:
    """Return a page with the findings, the changes since the last check, and how to fix each fault."""
    lines = [f"# {domain}: {verdict}", "", "| | standard | about | seen |", "|---|---|---|---|"]
    lines += [
        f"| {_MARKS[f.verdict]} {f.verdict} | {f.standard} | {_literal(f.subject)} | {_literal(f.seen)} |"
        for f in findings
    ]
    if change is not None and (change.new or change.gone):
        lines += ["", "## Since the last check", ""]
        lines += [f"* new: {f.standard} {_literal(f.subject)}: {_literal(f.seen)}" for f in change.new]
        lines += [f"* gone: {f.standard} {_literal(f.subject)}: {_literal(f.seen)}" for f in change.gone]
    for finding in to_fix(findings):
        lines += ["", f"## {finding.standard}, {_literal(finding.subject)}", "", finding.why]
        if finding.remedy:
            lines += ["", _literal(finding.remedy)]
        if finding.publish:
            lines += ["", "```", printable(finding.publish.replace("```", ""), keep="\n"), "```"]
    return "\n".join(lines) + "\n"


def to_fix(findings: Sequence[Finding]) -> list[Finding]:
    """Return the failures, then the warnings."""
    failing = [finding for finding in findings if finding.verdict is RecordVerdict.FAIL]
    return failing + [finding for finding in findings if finding.verdict is RecordVerdict.WARN]


def _literal(text: str) -> str:
    # DNS data is untrusted: its text must not become a heading, a link or a tag.
    return escape_active_markdown(text)
