"""A real Postfix delivers to the listener, and retries while the listener is unavailable."""

from __future__ import annotations

import asyncio
import smtplib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.bounce.intake import Intake, IntakeResult
from postroad.bounce.report import Envelope
from postroad.bounce.sources.listener import listen
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.clock import SystemClock
from postroad.errors import UnavailableError
from postroad.mail.token import TokenSigner
from postroad.queue import Queue
from postroad.settings import InboundSettings
from postroad.store.engine import read
from tests.bounce import mails
from tests.bounce.ledger import DOMAIN, LedgerFixture
from tests.smtp.conftest import Certificates
from tests.smtp.postfix import SBIN, postfix

pytestmark = pytest.mark.postfix


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that Postfix's own user may enter."""
    with tempfile.TemporaryDirectory(prefix="pr-postfix-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_postfix_keeps_a_bounce_until_it_is_taken(
    engine: sa.Engine, signer: TokenSigner, bounces: Queue, folder: Path
) -> None:
    ledger = LedgerFixture(engine, signer)
    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    intake = Intake(engine=engine, queue=bounces, clock=SystemClock())
    refused = asyncio.Event()
    away = True

    async def submit(raw: bytes, envelope: Envelope) -> IntakeResult:
        if away:
            refused.set()
            raise UnavailableError("the queue is away")
        return await intake.submit(raw, envelope)

    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as smtp:
            smtp.sendmail("", [recipient], mails.UNKNOWN)

    async with listen(
        InboundSettings(smtp="127.0.0.1:0"),
        host_name="in.example.com",
        submit=submit,
        recipient_policy=RecipientPolicy(signer, domains=[DOMAIN]),
        clock=SystemClock(),
    ) as listening:
        next_hop = int(listening.addresses[0].rpartition(":")[2])
        # Postfix is started and stopped by commands, which a loop must not wait for.
        instance = postfix(folder, next_hop, Certificates(folder))
        server = await asyncio.to_thread(instance.__enter__)
        try:
            await asyncio.to_thread(send, server.port)
            async with asyncio.timeout(40):
                await refused.wait()
                away = False
                while not (await bounces.stats()).queued:
                    flush = ["/usr/sbin/postqueue", "-c", str(folder / "etc"), "-f"]
                    await asyncio.to_thread(subprocess.run, flush, check=False, env={"PATH": SBIN + ":/usr/bin:/bin"})
                    await asyncio.sleep(0.2)
        finally:
            await asyncio.to_thread(instance.__exit__, None, None, None)
    with read(engine) as connection:
        [row] = connection.execute(sa.text("SELECT source, mail_from, recipient, raw FROM bounce_mail"))
    assert (row.source, row.mail_from, row.recipient) == ("smtp", "", recipient)
    assert bytes(row.raw).endswith(mails.UNKNOWN.partition(b"\r\n\r\n")[2])
