"""What a check finds: a verdict, what was seen, why it matters, and the record to publish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from postroad.dns.codes import Code, RecordVerdict, Standard, worst

__all__ = ["Code", "Finding", "RecordVerdict", "Standard", "failures", "found", "in_words", "txt_record", "worst"]

MAX_SHOWN = 2_000


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found. ``subject``: the name or address that it is about."""

    code: str
    standard: Standard
    verdict: RecordVerdict
    subject: str
    seen: str
    why: str
    remedy: str = ""
    publish: str = ""
    """The record, as it stands in a zone file; empty where nothing is to be published."""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same finding in two reports."""
        return self.code, self.subject


def found(
    code: Code, subject: str, seen: str, *, remedy: str = "", publish: str = "", verdict: RecordVerdict | None = None
) -> Finding:
    """Return a finding of this kind. DNS data is untrusted: only printable characters are kept.

    ``verdict``: where it is not that of the code.
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
    """Printable characters, up to a length: an escape sequence must not reach a terminal, nor a new line a page."""
    text = text[:MAX_SHOWN]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Findings for which receivers turn mail from the domain away."""
    return [f for f in findings if f.verdict is RecordVerdict.FAIL and f.standard.is_about_sending]


def in_words(findings: Sequence[Finding]) -> str:
    """What was seen, in one line."""
    return "; ".join(f"{finding.standard} {finding.subject}: {finding.seen}" for finding in findings)[:2_000]


def txt_record(name: str, text: str) -> str:
    """A TXT record as it stands in a zone file, in strings of at most 255 octets (RFC 1035 §3.3.14)."""
    escaped = [
        text[start : start + 255].replace("\\", "\\\\").replace('"', '\\"') for start in range(0, len(text), 255)
    ]
    strings = " ".join(f'"{part}"' for part in escaped or [""])
    return f"{name}. IN TXT {strings}"
