"""The findings of checks: verdict, observation, reason, and the record to publish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from postroad.dns.codes import Code, RecordVerdict, Standard, worst

__all__ = [
    "Code",
    "Finding",
    "RecordVerdict",
    "Standard",
    "failures",
    "in_words",
    "make_finding",
    "txt_record",
    "worst",
]

MAX_SHOWN = 2_000


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding of a check.

    Attributes:
        code: The finding's code, see `Code`.
        standard: The standard that was checked.
        verdict: How it bears on mail.
        subject: The name or address that it is about.
        seen: What was observed.
        why: Why it matters.
        remedy: What to do.
        publish: The record to publish, as in a zone file, or empty.
    """

    code: str
    standard: Standard
    verdict: RecordVerdict
    subject: str
    seen: str
    why: str
    remedy: str = ""
    publish: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """The identity of the finding in successive reports."""
        return self.code, self.subject


def make_finding(
    code: Code, subject: str, seen: str, *, remedy: str = "", publish: str = "", verdict: RecordVerdict | None = None
) -> Finding:
    """Return a finding. DNS data is untrusted, so unprintable characters are replaced.

    Args:
        code: The kind of finding.
        subject: The name or address that it is about.
        seen: What was observed.
        remedy: What to do.
        publish: The record to publish.
        verdict: The verdict, if it is not that of the code.

    Returns:
        The finding.
    """
    return Finding(
        code=code.word,
        standard=code.standard,
        verdict=verdict or code.verdict,
        subject=_shown(subject),
        seen=_shown(seen),
        why=code.why,
        remedy=_shown(remedy),
        publish=_shown(publish),
    )


def _shown(text: str) -> str:
    """Truncate a text and replace unprintable characters, such as escape sequences and line breaks."""
    text = text[:MAX_SHOWN]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings because of which receivers reject mail from the domain."""
    return [f for f in findings if f.verdict is RecordVerdict.FAIL and f.standard.is_about_sending]


def in_words(findings: Sequence[Finding]) -> str:
    """Return the observations in one line."""
    return "; ".join(f"{finding.standard} {finding.subject}: {finding.seen}" for finding in findings)[:2_000]


def txt_record(name: str, text: str) -> str:
    """Return a TXT record as in a zone file, in strings of at most 255 octets (RFC 1035 §3.3.14)."""
    escaped = [
        text[start : start + 255].replace("\\", "\\\\").replace('"', '\\"') for start in range(0, len(text), 255)
    ]
    strings = " ".join(f'"{part}"' for part in escaped or [""])
    return f"{name}. IN TXT {strings}"
