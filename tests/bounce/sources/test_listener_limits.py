"""What `postroad inbound` refuses: too large, too many, without TLS, or while it stops."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

import pytest
import sqlalchemy as sa
import trustme

from postroad.bounce.intake import Intake, IntakeResult
from postroad.bounce.report import Envelope
from postroad.bounce.sources.listener import listen
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.clock import SystemClock
from postroad.errors import ConfigError, UnavailableError
from postroad.mail.token import TokenSigner
from postroad.queue import Queue
from postroad.settings import InboundSettings, RateSetting
from tests.bounce import mails
from tests.bounce.ledger import DOMAIN, LedgerFixture
from tests.bounce.sources.listening import Open, stored_mails
from tests.bounce.sources.wire import connected
from tests.conftest import RedisServer


async def test_while_the_queue_is_away_a_mail_is_not_taken_and_the_next_try_counts(
    engine: sa.Engine, signer: TokenSigner, own_redis: RedisServer
) -> None:
    ledger = LedgerFixture(engine, signer)
    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    settings = InboundSettings(smtp="127.0.0.1:0", submit_ms=1_000)
    async with Queue.open(own_redis.url, "bounces") as queue:
        intake = Intake(engine=engine, queue=queue, clock=SystemClock())
        async with (
            listen(
                settings,
                host_name="in.example.com",
                submit=intake.submit,
                recipient_policy=RecipientPolicy(signer, domains=[DOMAIN]),
                clock=SystemClock(),
            ) as listening,
            connected(listening.addresses[0]) as wire,
        ):
            own_redis.signal(signal.SIGSTOP)  # It hangs: worse than being gone.
            assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("451 4.3.0")
            own_redis.signal(signal.SIGCONT)
            own_redis.kill()
            assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("451 4.3.0")
            own_redis.start()
            assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("250")
            assert (await queue.stats()).queued == 1
    assert len(stored_mails(ledger)) == 1


async def test_what_is_too_large_is_refused_and_long_lines_are_not(ledger: LedgerFixture, opened: Open) -> None:
    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    async with opened(max_message_bytes=65_536) as listening, connected(listening.addresses[0]) as wire:
        assert (await wire.say("MAIL FROM:<> SIZE=70000")).startswith("552")
        assert (await wire.mail(recipient, mails.mail("x" * 998 + "\n" + ("y" * 900 + "\n") * 80))).startswith("552")
        assert (await wire.mail(recipient, mails.mail("x" * 20_000))).startswith("250")


async def test_no_mail_is_smuggled_in_after_another(ledger: LedgerFixture, opened: Open) -> None:
    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    for end in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r"):
        smuggled = f"MAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\nDATA\r\nSubject: second\r\n".encode()
        async with opened() as listening, connected(listening.addresses[0]) as wire:
            said = await wire.mail(recipient, b"Subject: first" + end + smuggled)
            assert said.startswith("250"), end
            assert (await wire.say("NOOP")).startswith("250")
    assert all(raw.startswith(b"Subject: first") for *_, raw in stored_mails(ledger))


async def test_clients_are_limited_in_connections_and_in_mails(ledger: LedgerFixture, opened: Open) -> None:
    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    rate = RateSetting(count=2, per_ms=3_600_000)
    async with opened(connections_per_client=2, mails_per_client=rate) as listening:
        place = listening.addresses[0]
        async with connected(place) as first, connected(place):
            host, _, port = place.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            assert (await reader.read()).startswith(b"421 4.7.0")
            writer.close()
            replies = [await first.mail(recipient, mails.mail(f"{n}\n")) for n in range(3)]
            assert [reply[:3] for reply in replies] == ["250", "250", "450"]
            assert (await first.say("QUIT")).startswith("221")
        async with connected(place) as wire:
            assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("450")


async def test_a_client_that_guesses_addresses_is_cut_off(opened: Open) -> None:
    async with opened() as listening, connected(listening.addresses[0]) as wire:
        replies = [await wire.say("VRFY ada") for _ in range(51)]
        assert replies[-1].startswith("421")
        assert await wire.reader.read() == b""


async def test_starttls_hides_the_mail_and_offers_no_login(ledger: LedgerFixture, opened: Open, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("in.example.com").private_key_and_cert_chain_pem.write_to_path(tmp_path / "pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    async with opened(certificate=tmp_path / "pem") as listening, connected(listening.addresses[0]) as wire:
        assert "STARTTLS" in await wire.say("EHLO mx.example.org")
        assert (await wire.say("STARTTLS")).startswith("220")
        await wire.writer.start_tls(trusting, server_hostname="in.example.com")
        said = await wire.say("EHLO mx.example.org")
        assert "STARTTLS" not in said
        assert "AUTH" not in said
        assert (await wire.say("AUTH PLAIN AGEAYg==")).startswith("5")
        assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("250")
    assert len(stored_mails(ledger)) == 1


async def test_what_is_being_taken_in_is_answered_before_it_ends(
    ledger: LedgerFixture, bounces: Queue, opened: Open
) -> None:
    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(raw: bytes, envelope: Envelope) -> IntakeResult:
        begun.set()
        await go_on.wait()
        return await intake.submit(raw, envelope)

    leave = asyncio.Event()

    async def serve(places: asyncio.Future[str]) -> None:
        async with opened(slowly) as listening:
            places.set_result(listening.addresses[0])
            await leave.wait()

    places: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(places))
    async with connected(await places) as wire, connected(await places) as other:
        taking = asyncio.create_task(wire.mail(recipient, mails.UNKNOWN))
        await begun.wait()
        leave.set()
        async with asyncio.timeout(20):
            while not (await other.say("MAIL FROM:<>")).startswith("421"):
                await other.say("RSET")
        go_on.set()
        assert (await taking).startswith("250")
        await serving
        assert await wire.reader.read() == b""
    assert len(stored_mails(ledger)) == 1


async def test_a_port_in_use_and_a_bad_certificate_say_so(opened: Open, tmp_path: Path) -> None:
    async with opened() as listening:
        with pytest.raises(UnavailableError, match="cannot listen at"):
            async with opened(smtp=listening.addresses[0]):
                pass
    (tmp_path / "pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="cannot be read"):
        async with opened(certificate=tmp_path / "pem"):
            pass
