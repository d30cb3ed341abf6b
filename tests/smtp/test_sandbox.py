"""Template, pool, protocol and verdict together, against the sandbox, whose ledger records the accepted mail."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from email import policy
from email.parser import BytesParser
from pathlib import Path
from random import Random

import pytest
from pydantic import SecretStr

from postroad.delivery.outcome import classify_reply, classify_transport_error
from postroad.delivery.result import DeliveryVerdict
from postroad.errors import Blame
from postroad.mail.message import CompiledMessage, MessageSource, SenderIdentity, compile_message
from postroad.mail.token import TokenSigner
from postroad.sandbox import ConnectionEnding, Extension, Fault, RulePhase, Sandbox, SandboxConfig, SandboxRule
from postroad.settings import TlsMode
from postroad.smtp.errors import TransportError
from postroad.smtp.pool import SessionPool
from tests.smtp.conftest import QUICK, Certificates, Marks, route

NOW = datetime(2026, 11, 24, 4, 5, 6, tzinfo=UTC)


def template() -> CompiledMessage:
    identity = SenderIdentity(
        address="news@example.com",
        display_name="Zoë’s News",
        reply_to=None,
        postal_address="Example Ltd, 1 Example Street",
        bounce_domain="bounces.example.com",
    )
    return compile_message(
        MessageSource(
            subject="Grüße, {{ name }}",
            text="Hello {{ name }}\n.\n.\n{{ unsubscribe_url }}\n",
            html="<p>Hello {{ name }}</p>",
        ),
        sender=identity,
        signer=TokenSigner(SecretStr("a key that is only used in tests")),
        public_url="https://mail.example.com",
    )


async def deliver(
    pool: SessionPool, compiled: CompiledMessage, touch_id: int, address: str
) -> tuple[DeliveryVerdict, bool]:
    """Deliver as a worker does. Return the verdict, and whether the recipient is to blame permanently."""
    message = compiled.merge(touch_id, address, {"name": f"Ada {touch_id}"}, NOW)
    try:
        outcome = classify_reply(await pool.send(message, Marks()), deferrals=0)
    except TransportError as error:
        outcome = classify_transport_error(error)
    return outcome.verdict, outcome.suppress and outcome.blame is Blame.RECIPIENT


@pytest.mark.parametrize("pipelining", [True, False])
async def test_every_message_has_the_end_that_its_address_asks_for(tmp_path: Path, pipelining: bool) -> None:
    extensions = tuple(word for word in Extension if pipelining or word is not Extension.PIPELINING)
    expected = {
        "plain": (DeliveryVerdict.ACCEPTED, False),
        "a+bounce": (DeliveryVerdict.BOUNCED, True),
        "a+full": (DeliveryVerdict.BOUNCED, False),
        "a+defer": (DeliveryVerdict.DEFER, False),
        "a+450-at-data": (DeliveryVerdict.DEFER, False),
        "a+421": (DeliveryVerdict.DEFER, False),
        "a+550-5.7.26-at-dot": (DeliveryVerdict.DEAD, False),
        "a+drop": (DeliveryVerdict.RETRY, False),
        "a+drop-after-dot": (DeliveryVerdict.UNKNOWN, False),
        "a+drop-after-dot-kept": (DeliveryVerdict.UNKNOWN, False),
    }
    touches = [(f"{local}@example.org", end) for local, end in expected.items()] * 12
    Random(7).shuffle(touches)
    config = SandboxConfig(directory=str(tmp_path / "sandbox"), extensions=extensions)
    async with Sandbox(config, rng=Random(7)) as sandbox:
        compiled = template()
        async with SessionPool(route(sandbox.port, connections=4, messages_per_connection=7), QUICK) as pool:
            ends = await asyncio.gather(
                *(deliver(pool, compiled, number, address) for number, (address, _) in enumerate(touches))
            )
        wrong = {(touches[i][0], end) for i, end in enumerate(ends) if end != touches[i][1]}
        assert not wrong
        taken = Counter(found.recipient.partition("@")[0] for found in sandbox.accepted())
        assert taken == {"plain": 12, "a+drop-after-dot-kept": 12}


async def test_what_is_kept_is_what_was_merged(tmp_path: Path) -> None:
    async with Sandbox(SandboxConfig(directory=str(tmp_path / "sandbox")), rng=Random(7)) as sandbox:
        async with SessionPool(route(sandbox.port), QUICK) as pool:
            verdict, _ = await deliver(pool, template(), 17, "ada@example.org")
        assert verdict is DeliveryVerdict.ACCEPTED
        kept = [path for path in sandbox.maildir_path.rglob("*") if path.is_file()]
        assert len(kept) == 1
        found = BytesParser(policy=policy.default).parsebytes(kept[0].read_bytes())
        assert found["Subject"] == "Grüße, Ada 17"
        assert found["From"] == "Zoë’s News <news@example.com>"
        body = found.get_body(("plain",))
        assert body is not None
        assert body.get_content().startswith("Hello Ada 17\r\n.\r\n.\r\nhttps://mail.example.com/u/11-")


@pytest.mark.parametrize("tls", list(TlsMode))
async def test_login_by_every_mode_of_tls(tls: TlsMode, tmp_path: Path, certificates: Certificates) -> None:
    config = SandboxConfig(
        directory=str(tmp_path / "sandbox"),
        certificate=str(certificates.certificate),
        private_key=str(certificates.private_key),
        tls_port=0,
        credentials={"ada": "correct horse"},
        require_auth=True,
    )
    async with Sandbox(config, rng=Random(7)) as sandbox:
        port = sandbox.tls_port if tls is TlsMode.IMPLICIT else sandbox.port
        assert port is not None
        good = route(port, tls=tls, ca_file=certificates.ca_file, username="ada", password="correct horse")
        async with SessionPool(good, QUICK) as pool:
            assert (await deliver(pool, template(), 1, "ada@example.org"))[0] is DeliveryVerdict.ACCEPTED
        bad = route(port, tls=tls, ca_file=certificates.ca_file, username="ada", password="wrong pony")
        async with SessionPool(bad, QUICK) as pool:
            with pytest.raises(TransportError) as caught:
                await pool.send(template().merge(2, "ada@example.org", {"name": "Ada"}, NOW), Marks())
            assert caught.value.reply is not None
            assert caught.value.reply.code == 535
            assert "pony" not in f"{caught.value!r}{caught.value}"
        # A route without a login waits, and no touch dies of it.
        async with SessionPool(route(port, tls=tls, ca_file=certificates.ca_file), QUICK) as pool:
            assert (await deliver(pool, template(), 3, "ada@example.org"))[0] is DeliveryVerdict.DEFER


async def test_a_354_without_recipients_is_ended_and_rejected(tmp_path: Path) -> None:
    config = SandboxConfig(directory=str(tmp_path / "sandbox"), data_without_recipients=True)
    async with Sandbox(config, rng=Random(7)) as sandbox:
        async with SessionPool(route(sandbox.port, connections=1), QUICK) as pool:
            for number in range(5):
                end = await deliver(pool, template(), number, "a+bounce@example.org")
                assert end == (DeliveryVerdict.BOUNCED, True)
            assert (await deliver(pool, template(), 9, "ada@example.org"))[0] is DeliveryVerdict.ACCEPTED
        assert len(sandbox.accepted()) == 1


async def test_occasional_resets_lose_and_double_no_message(tmp_path: Path) -> None:
    rules = (
        SandboxRule(phase=RulePhase.MAIL, fault=Fault(ending=ConnectionEnding.DROP), every=7),
        SandboxRule(phase=RulePhase.RCPT, fault=Fault(ending=ConnectionEnding.RESET), every=11),
    )
    config = SandboxConfig(directory=str(tmp_path / "sandbox"), rules=rules)
    async with Sandbox(config, rng=Random(7)) as sandbox:
        compiled = template()
        async with SessionPool(route(sandbox.port, connections=3), QUICK) as pool:

            async def until_accepted(touch_id: int) -> None:
                for _ in range(50):
                    verdict, _ = await deliver(pool, compiled, touch_id, f"ada{touch_id}@example.org")
                    if verdict is DeliveryVerdict.ACCEPTED:
                        return
                    assert verdict is DeliveryVerdict.RETRY
                raise AssertionError(touch_id)

            await asyncio.gather(*map(until_accepted, range(100)))
        taken = Counter(found.recipient for found in sandbox.accepted())
    assert taken == {f"ada{touch_id}@example.org": 1 for touch_id in range(100)}
