"""`postroad inbound` as clients see it, before a real store and a real queue."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from postroad.bounce.intake import Intake, IntakeResult
from postroad.bounce.report import Envelope
from postroad.bounce.sources.listener import greeting
from postroad.bounce.sources.metrics import InboundMetrics
from postroad.clock import SystemClock
from postroad.errors import UnavailableError
from postroad.mail.token import Purpose
from postroad.queue import Queue
from postroad.settings import InboundSettings, RateSetting
from tests.bounce import mails
from tests.bounce.ledger import DOMAIN, LedgerFixture
from tests.bounce.sources.listening import REPLIES, Open, stored_mails
from tests.bounce.sources.wire import Wire, connected


async def test_a_bounce_is_kept_octet_for_octet_and_queued_before_the_250(
    ledger: LedgerFixture, bounces: Queue, opened: Open
) -> None:
    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    raw = mails.mail(".a line that begins with a dot\n..\nand 8 bits: ä\n")
    async with opened() as listening, connected(listening.addresses[0]) as wire:
        assert (await wire.mail(recipient, raw)).startswith("250 2.0.0")
        assert (await bounces.stats()).queued == 1
        assert stored_mails(ledger) == [("smtp", "", recipient, raw)]
        assert (await wire.mail(recipient, raw)).startswith("250 2.0.0")
        assert (await wire.say("QUIT")).startswith("221")
    assert (await bounces.stats()).queued == 1
    assert len(stored_mails(ledger)) == 1


async def test_other_recipients_are_rejected(ledger: LedgerFixture, opened: Open) -> None:
    touch = ledger.touch(ledger.recipient())
    token = ledger.return_path(touch).partition("+")[2].partition("@")[0]
    forged = token[:-1] + ("a" if token[-1] != "a" else "b")
    async with opened() as listening, connected(listening.addresses[0]) as wire:
        for recipient, said in (
            ("ada@example.org", "550 5.7.1"),  # an open relay would
            (f"bounce+{token}@example.org", "550 5.7.1"),
            (f"bounce+{token}%example.org@{DOMAIN}", "550 5.1.1"),
            (f"@{DOMAIN}:ada@example.org", "550 5.7.1"),
            (f'"ada@example.org"@{DOMAIN}', "550 5.1.1"),
            (f"bounce+{forged}@{DOMAIN}", "550 5.1.1"),
            (f"unsubscribe+{token}@{DOMAIN}", "550 5.1.1"),  # of another purpose
            (f"x.bounce+{token}@{DOMAIN}", "550 5.1.1"),
            (f"postmaster@{DOMAIN}", "550 5.1.1"),
        ):
            assert (await wire.mail(recipient, mails.UNKNOWN)).startswith(said), recipient
        assert (await wire.say("DATA")).startswith("503")
    assert stored_mails(ledger) == []


async def test_postmaster_without_a_domain_is_taken(ledger: LedgerFixture, opened: Open) -> None:
    # RFC 5321 §4.5.1
    async with opened() as listening, connected(listening.addresses[0]) as wire:
        assert (await wire.mail("postmaster", mails.UNKNOWN)).startswith("250")
    assert len(stored_mails(ledger)) == 1


@pytest.mark.parametrize(
    "address",
    [
        b"<a@\xff\xfe.example>",
        b"<",
        b"<>",
        b"<@>",
        b'<"@>',
        b"<a@b@c>",
        b"<(>",
        b"<a@[IPv6:>",
        b"<" + b"a" * 900 + b"@x>",
    ],
)
async def test_what_is_no_address_is_refused_for_good(opened: Open, address: bytes) -> None:
    async with opened() as listening, connected(listening.addresses[0]) as wire:
        await wire.say("MAIL FROM:<>")
        assert (await wire.say(b"RCPT TO:" + address))[0] == "5"
        assert (await wire.say("NOOP")).startswith("250")


async def test_servers_change_the_case_of_an_address(ledger: LedgerFixture, opened: Open) -> None:
    recipient = ledger.return_path(ledger.touch(ledger.recipient())).upper()
    async with opened() as listening, connected(listening.addresses[0]) as wire:
        assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("250")


async def test_only_the_null_path_returns_mail_unless_the_settings_say_so(ledger: LedgerFixture, opened: Open) -> None:
    touch = ledger.touch(ledger.recipient())
    bounce, unsubscribe = ledger.return_path(touch), ledger.unsubscribe(touch)
    async with opened(senders=["mailer-daemon@*"]) as listening, connected(listening.addresses[0]) as wire:
        assert (await wire.mail(bounce, mails.HUMAN, "ada@example.org")).startswith("550 5.7.1")
        assert (await wire.mail(bounce, mails.UNKNOWN, "MAILER-DAEMON@example.org")).startswith("250")
        assert (await wire.mail(unsubscribe, mails.HUMAN, "ada@example.org")).startswith("250")
        assert (await wire.mail(REPLIES, mails.HUMAN, "ada@example.org")).startswith("250")
    assert sorted(sender for _, sender, _, _ in stored_mails(ledger)) == [
        "MAILER-DAEMON@example.org",
        "ada@example.org",
        "ada@example.org",
    ]


async def test_lmtp_answers_for_each_recipient(
    ledger: LedgerFixture, bounces: Queue, opened: Open, tmp_path: Path
) -> None:
    first = ledger.return_path(ledger.touch(ledger.recipient()))
    second = ledger.return_path(ledger.touch(ledger.recipient()))
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())

    async def only_the_first(raw: bytes, envelope: Envelope) -> IntakeResult:
        if envelope.recipient == second:
            raise UnavailableError("the server went away between the two")
        return await intake.submit(raw, envelope)

    place = f"unix:{tmp_path}/lmtp"
    async with opened(only_the_first, smtp=None, lmtp=place) as listening:
        assert listening.addresses == [place]
        async with connected(place, "LHLO mx.example.com") as wire:
            assert (await wire.say("EHLO mx.example.com")).startswith("500")
            await wire.say("MAIL FROM:<>")
            await wire.say(f"RCPT TO:<{first}>")
            await wire.say(f"RCPT TO:<{second}>")
            assert (await wire.say("RCPT TO:<ada@example.org>")).startswith("550")
            await wire.say("DATA")
            assert (await wire.say(mails.UNKNOWN.rstrip() + b"\r\n.")).startswith("250")
            assert (await wire.reply()).startswith("451")
            assert (await wire.say("NOOP")).startswith("250")
    assert [(source, recipient) for source, _, recipient, _ in stored_mails(ledger)] == [("lmtp", first)]


async def test_smtp_has_one_answer_and_takes_nothing_back(ledger: LedgerFixture, bounces: Queue, opened: Open) -> None:
    first = ledger.return_path(ledger.touch(ledger.recipient()))
    second = ledger.return_path(ledger.touch(ledger.recipient()))
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
    away = True

    async def submit(raw: bytes, envelope: Envelope) -> IntakeResult:
        if away and envelope.recipient == second:
            raise UnavailableError("the server went away between the two")
        return await intake.submit(raw, envelope)

    async def both(wire: Wire) -> str:
        for line in ("MAIL FROM:<>", f"RCPT TO:<{first}>", f"RCPT TO:<{second}>", "DATA"):
            await wire.say(line)
        return await wire.say(mails.UNKNOWN.rstrip() + b"\r\n.")

    async with opened(submit) as listening, connected(listening.addresses[0]) as wire:
        assert (await both(wire)).startswith("451")
        away = False
        assert (await both(wire)).startswith("250")
    assert sorted(recipient for _, _, recipient, _ in stored_mails(ledger)) == sorted([first, second])
    assert (await bounces.stats()).queued == 2


async def test_a_reply_to_an_address_with_a_token_is_taken_from_anybody(ledger: LedgerFixture, opened: Open) -> None:
    touch = ledger.touch(ledger.recipient())
    token = ledger.signer.sign(Purpose.REPLY, touch)
    bounce = ledger.signer.sign(Purpose.BOUNCE, touch)
    async with opened() as listening, connected(listening.addresses[0]) as wire:
        for recipient, said in (
            (f"hello+{token}@{DOMAIN}", "250"),
            (f"HELLO+{token.upper()}@{DOMAIN}", "250"),
            (f"hello+{bounce}@{DOMAIN}", "550 5.1.1"),  # of another purpose
            (f"hello{token}@{DOMAIN}", "550 5.1.1"),
            (f"hello+{token}@example.org", "550 5.7.1"),
        ):
            answer = await wire.mail(recipient, mails.HUMAN, mail_from="ada@example.org")
            assert answer.startswith(said), recipient


async def test_metrics_tell_what_clients_were_answered(ledger: LedgerFixture, opened: Open) -> None:
    registry = CollectorRegistry()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"postroad_inbound_{name}", labels)

    recipient = ledger.return_path(ledger.touch(ledger.recipient()))
    fails = False

    async def submit(raw: bytes, envelope: Envelope) -> IntakeResult:
        if fails:
            raise UnavailableError("away")
        return IntakeResult(digest="d" * 64, new=value("mails_total", answer="taken") == 0)

    settings = {"connections": 1, "mails_per_client": RateSetting(count=4, per_ms=3_600_000)}
    async with (
        opened(submit, metrics=InboundMetrics(registry), **settings) as listening,
        connected(listening.addresses[0]) as wire,
    ):
        assert value("connections") == 1
        for _ in range(2):
            assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("250")
        assert (await wire.mail("ada@example.org", mails.UNKNOWN)).startswith("5")
        fails = True
        assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("451")
        assert (await wire.mail(recipient, mails.UNKNOWN)).startswith("450")
        reader, writer = await asyncio.open_connection(*listening.addresses[0].split(":"))
        assert (await reader.readline()).startswith(b"421")
        writer.close()
    answers = ("taken", "known", "refused", "throttled", "failed")
    assert [value("mails_total", answer=answer) for answer in answers] == [1, 1, 1, 1, 1]
    assert value("turned_away_total") == 1


async def test_who_looks_for_the_listener_hears_its_greeting(opened: Open, tmp_path: Path) -> None:
    async with opened() as listening:
        at = InboundSettings(smtp=listening.addresses[0])
        said = await asyncio.to_thread(greeting, at)
        assert said is not None
        assert said.startswith("220 in.example.com")
    assert await asyncio.to_thread(greeting, at) is None
    place = f"unix:{tmp_path}/lmtp"
    async with opened(smtp="", lmtp=place):
        assert (await asyncio.to_thread(greeting, InboundSettings(smtp=None, lmtp=place)) or "").startswith("220")
