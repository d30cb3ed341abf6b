"""100,000 mutants each time; `python -m tests.bounce.fuzz` makes as many others as one likes."""

from __future__ import annotations

import pytest

from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.process import classify_mail
from postroad.bounce.report import Envelope
from tests.bounce.fuzz import GUILTY, INNOCENT, SIGNER, SUPPRESSING, TOUCH, check, run

MUTANTS = 100_000
SLICES = 20
"""A second of work each, so that whichever processes are free share it."""


@pytest.mark.parametrize("seed", range(SLICES))
def test_no_mutant_raises_or_suppresses_whom_it_should_not(seed: int) -> None:
    assert run(MUTANTS // SLICES, seed) == []


def test_the_mails_that_are_mutated_do_what_they_are_there_for() -> None:
    for raw in GUILTY:
        _, judgements, tokens = classify_mail(parse_stored(raw, Envelope()), SIGNER)
        assert tokens.match is not None
        assert tokens.match.touch_id == TOUCH
        assert judgements[0].verdict in SUPPRESSING
        assert check(raw, innocent=True) is not None  # The check itself finds what is wrong.
    assert [check(raw, innocent=True) for raw in INNOCENT] == [None] * len(INNOCENT)
