"""What frequency caps cost an admission: batches of claims with caps and without, in turns."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import count
from typing import NamedTuple

import sqlalchemy as sa

from benchmarks.figures import median
from benchmarks.large_ledger import NOW, LargeLedger
from postroad.settings.types import RateSetting
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.frequency import FrequencyRule
from postroad.store.touch_page import touch_pages
from postroad.store.touches.sending import Claim, admit

BATCH = 100
"""Claims of one transaction, as a busy worker admits them."""

PAST = 2
"""Messages that each recipient got within the span of the cap."""


class CapsCost(NamedTuple):
    """Time of an admission with caps, divided by that without; and the size of a touch."""

    ratio: float
    touch_bytes: float


def cost_of_caps(ledger: LargeLedger, number: int) -> CapsCost:
    """Measure admissions of touches that wait, none of which is over the cap."""
    for n in range(PAST):
        campaign_id, [step] = ledger.campaign(f"past-{n}", CampaignState.FINISHED)
        ledger.touches(campaign_id, step, "accepted", 1, number)
    before = ledger.bytes()
    campaign_id, [step] = ledger.campaign("capped", CampaignState.RUNNING)
    ledger.touches(campaign_id, step, "queued", 1, number)
    touch_bytes = (ledger.bytes() - before) / number
    ledger.analyse()
    caps = {"normal": RateSetting.parse(f"{PAST + 1}/7d")}
    rules = [FrequencyRule(caps=kind, now=NOW + timedelta(hours=1)) for kind in ({}, caps)]
    ids = [touch.id for page in touch_pages(ledger.engine, campaign_id) for touch in page]
    tokens = count(1)
    samples: list[list[float]] = [[], []]
    for start in range(0, number, BATCH):
        claims = [Claim(id_, next(tokens), address=f"a{id_}@example.com") for id_ in ids[start : start + BATCH]]
        which = start // BATCH % 2
        begun = time.perf_counter()
        with write(ledger.engine) as connection:
            admitted = admit(connection, claims, rules[which])
        samples[which].append(time.perf_counter() - begun)
        assert len(admitted) == len(claims)
    with write(ledger.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = 'finished' WHERE id = :id"), {"id": campaign_id})
    without, with_caps = (median(taken) for taken in samples)
    return CapsCost(with_caps / without, touch_bytes)
