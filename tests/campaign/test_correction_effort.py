"""A page of a correction costs the same in a larger ledger."""

from __future__ import annotations

import sqlalchemy as sa

from benchmarks.large_ledger import NOW, large_ledger
from benchmarks.transactions import watched
from postroad.campaign.correction import CorrectsDefinition, prepare_correction
from postroad.store.campaign import CampaignState
from postroad.store.touch_page import PAGE


def test_a_page_of_another_preparation_is_not_joined_to_the_whole_ledger(engine: sa.Engine) -> None:
    ledger = large_ledger(engine, 20 * PAGE)
    corrects = CorrectsDefinition(campaign="old")
    prepare_correction(engine, "sorry", corrects, NOW, where="sorry.yaml")
    for name in ("other", "another"):
        campaign, [step] = ledger.campaign(name, CampaignState.FINISHED)
        ledger.touches(campaign, step, "accepted", 1, ledger.size)
    ledger.analyse()
    with watched(engine) as watch:
        prepare_correction(engine, "sorry", corrects, NOW, where="sorry.yaml")
    [page] = [worst for site, worst in watch.worst().items() if site.endswith(":_remove_others")]
    # On SQLite, instructions; on PostgreSQL, rows: a member, and each of its touches.
    assert page.effort <= (200 if engine.dialect.name == "sqlite" else 6) * PAGE
