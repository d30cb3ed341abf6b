"""What a relay says of our account, of a full mailbox and of a missing one: from the reply to ledger and gates."""

from __future__ import annotations

import pytest

from postroad.delivery.job import SEND_QUEUE
from postroad.sandbox import Fault, RulePhase, SandboxRule
from postroad.store.ledger import TouchState
from tests.end_to_end.site import Site

pytestmark = pytest.mark.timeout(120)

FULL = SandboxRule(
    phase=RulePhase.RCPT, fault=Fault(reply="552 5.1.1 Boite pleine. Recipient overquota. OFR_417 [417]")
)
NOT_VERIFIED = SandboxRule(
    phase=RulePhase.DOT,
    fault=Fault(
        reply="554 Message rejected: Email address is not verified. The following identities failed the check in "
        "region EU-WEST-1: ada@sender.example"
    ),
)
QUOTA = SandboxRule(
    phase=RulePhase.DOT,
    fault=Fault(
        reply="554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; The message can't be "
        "submitted because the sender's submission quota was exceeded."
    ),
)
NO_SUCH_USER = SandboxRule(phase=RulePhase.RCPT, local_part="q0", fault=Fault(reply="550 5.7.1 No such user!"))
ADDRESSES = [f"q{number}@mailbox.example" for number in range(6)]


async def _start(site: Site, rule: SandboxRule) -> None:
    site.sandbox.use([rule])
    await site.launch(ADDRESSES)
    site.start("recorder")
    site.start("worker")


async def _paused_gates(site: Site) -> set[str]:
    async with site.context() as context:
        gates = await (await context.queue(SEND_QUEUE)).gates()
    return {state.gate.name for state in gates if state.gate.paused_until_ms}


def _suppressed(site: Site) -> set[str]:
    rows = site.json("suppression", "list")
    assert isinstance(rows, list)
    return {row["address"] for row in rows}


async def test_a_full_mailbox_is_not_suppressed(site: Site) -> None:
    await _start(site, FULL)
    await site.until(lambda: set(site.states().values()) == {"bounced"})
    assert _suppressed(site) == set()


@pytest.mark.parametrize(
    ("rule", "gate"), [(NOT_VERIFIED, "sender:ada@sender.example"), (QUOTA, "route:sandbox")], ids=["sender", "route"]
)
async def test_a_refused_account_is_held_and_its_touches_are_sent_later(
    site: Site, rule: SandboxRule, gate: str
) -> None:
    await _start(site, rule)
    await site.until(lambda: f"gate {gate} is paused" in site.log("worker"))
    await site.until(lambda: "deferred" in site.states().values())
    assert set(site.states().values()) <= {"deferred", "queued", "sending"}
    assert gate in await _paused_gates(site)
    assert _suppressed(site) == set()
    assert not site.received()
    # The account is in order again.
    site.sandbox.use([])
    site.run("queue", "gate", "resume", gate)
    for address in ADDRESSES:
        site.run("queue", "reschedule", address, "--to", "0s", check=False)
    assert await site.until_settled() == {TouchState.ACCEPTED: len(ADDRESSES)}
    assert set(site.received().values()) == {1}


async def test_one_missing_address_is_suppressed_and_the_sender_sends_on(site: Site) -> None:
    await _start(site, NO_SUCH_USER)
    counts = await site.until_settled()
    assert counts == {TouchState.ACCEPTED: 5, TouchState.BOUNCED: 1}
    assert _suppressed(site) == {"q0@mailbox.example"}
    assert "sender:ada@sender.example" not in await _paused_gates(site)


@pytest.mark.parametrize(
    ("said", "suppressed"), [("550 5.1.1 Rejected", False), ("550 5.1.1 User unknown", True)], ids=["vague", "clear"]
)
async def test_the_same_words_to_all_suppress_only_if_they_mean_the_mailbox(
    site: Site, said: str, suppressed: bool
) -> None:
    await _start(site, SandboxRule(phase=RulePhase.RCPT, fault=Fault(reply=said)))
    await site.until(lambda: set(site.states().values()) == {"bounced"})
    await site.until(lambda: _suppressed(site) == (set(ADDRESSES) if suppressed else set()))
