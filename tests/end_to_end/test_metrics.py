"""Outcomes by sender, provider and outcome, scraped from the processes that record them."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from postroad.store.ledger import TouchState
from tests.bounce import mails
from tests.end_to_end.site import Site
from tests.queue.nodes import free_port

pytestmark = pytest.mark.timeout(150)
ADA = "ada@sender.example"


async def deliveries(*ports: int) -> Counter[tuple[str, str, str]]:
    """Scrape `postroad_deliveries_total` of several processes and add it up, by sender, provider and outcome."""
    found: Counter[tuple[str, str, str]] = Counter()
    async with httpx.AsyncClient() as client:
        for port in ports:
            try:
                text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            except httpx.TransportError:
                continue  # It does not listen yet.
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name == "postroad_deliveries_total":
                        labels = sample.labels
                        found[labels["sender"], labels["provider"], labels["outcome"]] += int(sample.value)
    return found


async def test_outcomes_are_counted_by_sender_and_provider(site: Site) -> None:
    recorded, judged = free_port(), free_port()
    site.start("recorder", "--metrics-port", f"{recorded}")
    site.start("worker", "bounce:process", "--metrics-port", f"{judged}")
    addresses = ["ok@gmail.com", "also@gmail.com", "gone+550-5.1.1@gmail.com"]
    addresses += ["ok@rare.example", "later+451-4.7.1@rarer.example"]
    await site.launch(addresses)
    site.start("worker")
    expected = {
        (ADA, "google", "accepted"): 2,
        (ADA, "google", "bounced"): 1,
        (ADA, "other", "accepted"): 1,
        (ADA, "other", "deferred"): 1,
    }

    async def counted() -> bool:
        return await deliveries(recorded, judged) == expected

    await site.until(counted, 60)
    assert (await site.counts())[TouchState.ACCEPTED] == 3

    [taken] = [message for message in site.sandbox.accepted() if message.recipient == "also@gmail.com"]
    returned = f"Message-ID: <{taken.message_id}>\nFrom: {ADA}\n\nNews."
    complaint = site.folder / "complaint.eml"
    complaint.write_bytes(mails.feedback(returned=returned))
    site.run("bounce", "process", str(complaint))
    complained = {**expected, (ADA, "google", "complained"): 1}

    async def heard() -> bool:
        return await deliveries(recorded, judged) == complained

    await site.until(heard, 60)
    # The same mail again is processed again, and counted once.
    site.run("bounce", "process", str(complaint))
    assert await deliveries(recorded, judged) == complained
