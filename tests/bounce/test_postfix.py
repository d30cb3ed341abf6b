"""A message is sent through a real Postfix, rejected by the next server, and returns as a DSN of Postfix."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from postroad.bounce.classify import BounceClass
from postroad.bounce.match import MatchedBy
from postroad.bounce.mbox import mails_in
from postroad.mail.message import Message, MessageSource, SenderIdentity, compile_message
from postroad.mail.token import TokenSigner
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.smtp.session import SmtpSession
from postroad.store.ledger import TouchState
from tests.bounce.ledger import DOMAIN, LedgerFixture
from tests.smtp.conftest import QUICK, Certificates, nothing, route
from tests.smtp.postfix import Postfix, postfix
from tests.store.rows import NOW

pytestmark = pytest.mark.postfix

ADDRESSES = {
    "ada+bounce@example.org": (BounceClass.HARD, TouchState.BOUNCED),
    "bob+full@example.org": (BounceClass.SOFT, TouchState.BOUNCED),
    "eve+550-5.7.1@example.org": (BounceClass.BLOCK, TouchState.BOUNCED),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(SandboxConfig(directory=str(tmp_path / "sandbox")), rng=Random(7)) as sandbox:
        yield sandbox


@pytest.fixture
def relay(sandbox: Sandbox, certificates: Certificates) -> Iterator[Postfix]:
    with tempfile.TemporaryDirectory(prefix="pf-") as name:
        Path(name).chmod(0o777)
        with postfix(Path(name), sandbox.port, certificates) as started:
            yield started


def merged(ledger: LedgerFixture, touch: int, address: str) -> Message:
    identity = SenderIdentity(
        address="news@example.com",
        display_name="News",
        reply_to=None,
        postal_address="1 High Street, Springfield",
        bounce_domain=DOMAIN,
    )
    compiled = compile_message(
        MessageSource(subject="News", text="{{ unsubscribe_url }} {{ postal_address }}"),
        sender=identity,
        signer=ledger.signer,
        public_url="https://mail.example.com",
    )
    return compiled.merge(touch, address, {}, NOW)


async def test_what_postfix_brings_back_finds_its_touch(
    engine: sa.Engine, signer: TokenSigner, relay: Postfix, tmp_path: Path
) -> None:
    ledger = LedgerFixture(engine, signer)
    touches = {address: ledger.touch(ledger.recipient(address)) for address in ADDRESSES}
    session = await SmtpSession.open(route(relay.port), QUICK)
    for address, touch in touches.items():
        assert (await session.send(merged(ledger, touch, address), nothing)).code == 250
    await session.close()
    maildir = tmp_path / "sandbox" / "Maildir"
    async with asyncio.timeout(40):
        while len(came_back := [raw for _, raw in mails_in(maildir)]) < len(ADDRESSES):
            await asyncio.sleep(0.05)
    processed = {one.touch_id: one for one in (ledger.process(raw) for raw in came_back)}
    for address, (verdict, state) in ADDRESSES.items():
        one = processed[touches[address]]
        assert (one.verdict, one.matched_by) == (verdict, MatchedBy.RETURN_PATH)
        assert ledger.state(touches[address]) is state
    assert list(ledger.suppressed().values()) == ["hard_bounce"]
