"""Rules of large mailbox providers for bulk senders: the volume from which they apply, and violations."""

from __future__ import annotations

import pytest

from postroad.dns.bulk_sender import bulk_sender
from postroad.dns.finding import Code, failures, make_finding

WELL = [make_finding(code, "acme.dev", "") for code in (Code.SPF_OK, Code.DKIM_OK, Code.DMARC_OK)]


@pytest.mark.parametrize(
    ("most", "codes"),
    [
        ({}, ["large-sender.small"]),
        ({"google": 3_999, "outlook": 3_999, "gmx": 90_000}, ["large-sender.small"]),
        ({"google": 4_000}, ["large-sender.near"]),
        ({"google": 4_999, "outlook": 5_000}, ["large-sender.near", "large-sender.near"]),
        ({"google": 5_000, "outlook": 5_001}, ["large-sender.met", "large-sender.met"]),
        ({"yahoo": 1}, ["large-sender.met"]),
    ],
)
def test_rules_hold_from_a_volume_on(most: dict[str, int], codes: list[str]) -> None:
    assert [finding.code for finding in bulk_sender("acme.dev", most, WELL)] == codes


@pytest.mark.parametrize(
    ("also", "code"),
    [
        (Code.DMARC_MISSING, "large-sender.unmet"),
        (Code.SPF_NOT_COVERED, "large-sender.unmet"),
        (Code.DKIM_MISSING, "large-sender.unmet"),
        (Code.DMARC_NONE, "large-sender.met"),  # p=none is enough for them
        (Code.MX_MISSING, "large-sender.met"),  # what its own finding says
        (Code.DKIM_UNASKED, "large-sender.open"),
        (Code.DMARC_UNKNOWN, "large-sender.open"),
    ],
)
def test_what_fails_of_spf_dkim_and_dmarc_breaks_them(also: Code, code: str) -> None:
    [finding] = bulk_sender("acme.dev", {"google": 6_000}, [*WELL, make_finding(also, "acme.dev", "")])
    assert (finding.code, finding.subject) == (code, "acme.dev at google")
    assert "6,000 messages" in finding.seen
    assert failures([finding]) == []  # The finding that breaks them holds the sender back, and this one not again.
