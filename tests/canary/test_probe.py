"""A canary by real SMTP into a real Maildir, past a receiver that verifies its signature and says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import dkim
import pytest
import sqlalchemy as sa
from aiosmtpd.smtp import SMTP, Envelope, Session
from pydantic import SecretStr

from postroad.bounce.sources.imap import TAKEN
from postroad.canary.probe import CanaryReport, send_canary
from postroad.clock import SystemClock
from postroad.dns.finding import RecordVerdict
from postroad.dns.resolver import Resolver
from postroad.errors import ConfigError
from postroad.mail.dkim import Algorithm, generate_key
from postroad.mail.dkim_keys import load_keys
from postroad.mail.token import TokenSigner
from postroad.read_model.canaries import canaries_of
from postroad.settings import Settings, SourceKind, SourceSettings
from postroad.store.canary_report import KEPT, StoredCanary, newest_canaries, save_canary
from postroad.store.engine import read, write
from tests.bounce.sources.dovecot import PASSWORD, USER, Dovecot, dovecot
from tests.dns.nameserver import Nameserver
from tests.smtp.conftest import Certificates

MX = "mx.receiver.example"
SETTINGS = """
public_url = "https://mail.sender.example"
[routes.relay]
host = "127.0.0.1"
port = {port}
tls = "none"
[senders.news]
address = "news@sender.test"
postal_address = "1 High Street, Springfield"
route = "relay"
[[senders.news.dkim]]
selector = "s1"
key_file = "s1.pem"
[canary]
address = "canary@receiver.example"
authserv_id = "mx.receiver.example"
wait_ms = "1s"
look_ms = "100ms"
[canary.mailbox]
kind = "maildir"
path = "Maildir"
"""
_numbers = count()


class Receiver:
    """Takes mail, verifies its signature by what DNS has, writes that on it, and files it: by itself into a Maildir."""

    def __init__(self, maildir: Path) -> None:
        self.maildir = maildir
        self.records: dict[str, str] = {}
        self.says = f"{MX}; spf=pass smtp.mailfrom=sender.test; dkim={{dkim}} header.d=sender.test; dmarc={{dkim}}"
        self.refuses = False
        self.drops = False
        self.files: Callable[[bytes], None] = self._into_maildir
        self.recipients: list[str] = []
        for folder in ("new", "cur", "tmp"):
            (maildir / folder).mkdir(parents=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd)
        if self.refuses:
            return "550 5.7.26 not today"
        content = envelope.content
        assert isinstance(content, bytes)
        self.recipients += envelope.rcpt_tos
        valid = dkim.verify(content, dnsfunc=lambda name, timeout=5: self._record(name))
        said = self.says.format(dkim="pass" if valid else "fail")
        # A forged one, as any sender may put into a message: it is of another host.
        forged = "Authentication-Results: forged.example; dkim=fail\r\n"
        raw = f"Authentication-Results: {said}\r\n{forged}".encode() + content
        if not self.drops:
            await asyncio.to_thread(self.files, raw)
        return "250 taken"

    def _into_maildir(self, raw: bytes) -> None:
        name = f"{next(_numbers)}.receiver"
        (self.maildir / "tmp" / name).write_bytes(raw)
        (self.maildir / "tmp" / name).rename(self.maildir / "new" / name)

    def _record(self, name: bytes) -> bytes:
        return self.records.get(name.decode().rstrip("."), "").encode()


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path / "Maildir")


@pytest.fixture
async def settings(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Settings]:
    monkeypatch.delenv("POSTROAD_CONFIG", raising=False)
    (tmp_path / "s1.pem").write_bytes(generate_key(Algorithm.RSA))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(receiver, hostname=MX), "127.0.0.1", 0)
    (tmp_path / "postroad.toml").write_text(SETTINGS.format(port=server.sockets[0].getsockname()[1]))
    yield Settings.load(tmp_path / "postroad.toml")
    server.close()


async def send(settings: Settings, receiver: Receiver, engine: sa.Engine, *, published: bool = True) -> CanaryReport:
    [key] = load_keys("news", settings.sender("news"), {})
    if published:
        receiver.records[key.record_name.rstrip(".")] = key.record
    strings = " ".join(f'"{key.record[at : at + 255]}"' for at in range(0, len(key.record), 255))
    zone = {
        "sender.test": {"TXT": ['"v=spf1 ip4:192.0.2.1 -all"'], "MX": ["10 mx.sender.test."]},
        "s1._domainkey.sender.test": {"TXT": [strings]},
        "_dmarc.sender.test": {"TXT": ['"v=DMARC1; p=reject; rua=mailto:d@sender.test"']},
    }
    clock = SystemClock()
    async with Nameserver(zone) as server, Resolver(server.settings(), clock) as resolver:
        return await send_canary(
            settings,
            "news",
            engine=engine,
            resolver=resolver,
            signer=TokenSigner(SecretStr("a key that is only used in tests")),
            clock=clock,
            environ={},
        )


def codes(report: CanaryReport) -> dict[str, str]:
    return {finding.subject.partition(" ")[0]: finding.code for finding in report.findings}


async def test_a_canary_that_passes_is_put_aside_and_other_mail_stays(
    settings: Settings, receiver: Receiver, engine: sa.Engine
) -> None:
    (receiver.maildir / "new" / "other").write_bytes(b"Subject: Canary not ours\r\n\r\nhello\r\n")
    report = await send(settings, receiver, engine)
    assert codes(report) == {"SPF": "canary.ok", "DKIM": "canary.ok", "DMARC": "canary.ok"}
    assert report.verdict is RecordVerdict.PASS
    with read(engine) as connection:
        [stored] = canaries_of(connection, "news@sender.test")
    assert (stored.verdict, tuple(stored.findings)) == (report.verdict, report.findings)
    assert receiver.recipients == ["canary@receiver.example"]
    assert [file.name for file in (receiver.maildir / "new").iterdir()] == ["other"]
    [seen] = (receiver.maildir / "cur").iterdir()
    assert b"DKIM-Signature:" in seen.read_bytes()


async def test_an_invalid_signature_differs_from_dns(settings: Settings, receiver: Receiver, engine: sa.Engine) -> None:
    report = await send(settings, receiver, engine, published=False)
    assert codes(report) == {"SPF": "canary.ok", "DKIM": "canary.differs", "DMARC": "canary.differs"}
    assert report.verdict is RecordVerdict.FAIL


async def test_rejected_lost_and_unreported_canaries_are_findings(
    settings: Settings, receiver: Receiver, engine: sa.Engine
) -> None:
    receiver.says = "mx.other.example; spf=pass"
    [unspoken] = (await send(settings, receiver, engine)).findings
    receiver.drops = True
    [lost] = (await send(settings, receiver, engine)).findings
    receiver.refuses = True
    [refused] = (await send(settings, receiver, engine)).findings
    assert [finding.code for finding in (unspoken, lost, refused)] == [
        "canary.no-results",
        "canary.lost",
        "canary.refused",
    ]
    assert "5.7.26 not today" in refused.seen


def by_imap(settings: Settings, box: Dovecot, password: str) -> Settings:
    values = {
        "kind": SourceKind.IMAP,
        "host": "localhost",
        "port": box.tls_port,
        "ca_file": box.certificates.ca_file,
        "username": USER,
        "password": SecretStr(password),
    }
    assert settings.canary is not None
    canary = settings.canary.model_copy(update={"mailbox": SourceSettings.model_validate(values)})
    return settings.model_copy(update={"canary": canary})


async def test_a_canary_is_found_by_imap_and_other_mail_stays(
    settings: Settings, receiver: Receiver, engine: sa.Engine, tmp_path: Path
) -> None:
    with dovecot(Certificates(tmp_path)) as box:
        box.put(b"Subject: Canary not ours\r\n\r\nhello\r\n")
        receiver.files = box.put
        report = await send(by_imap(settings, box, PASSWORD), receiver, engine)
        assert codes(report) == {"SPF": "canary.ok", "DKIM": "canary.ok", "DMARC": "canary.ok"}
        assert [TAKEN in flags for flags in box.flags()] == [False, True]
        with pytest.raises(ConfigError, match="login was refused"):
            await send(by_imap(settings, box, "another"), receiver, engine)


async def test_without_a_mailbox_there_is_no_canary(
    settings: Settings, receiver: Receiver, engine: sa.Engine, tmp_path: Path
) -> None:
    text = (tmp_path / "postroad.toml").read_text()
    (tmp_path / "postroad.toml").write_text(text.partition("[canary]")[0])
    with pytest.raises(ConfigError, match="no mailbox for canaries"):
        await send(Settings.load(tmp_path / "postroad.toml"), receiver, engine)


def test_the_oldest_reports_of_a_sender_are_deleted(engine: sa.Engine) -> None:
    now = SystemClock().now()
    with write(engine) as connection:
        save_canary(connection, StoredCanary(sender="other@sender.test", verdict="pass", findings=[], ended_at=now))
        for number in range(KEPT + 5):
            verdict = "fail" if number < 5 else "pass"
            save_canary(connection, StoredCanary(sender="news@sender.test", verdict=verdict, findings=[], ended_at=now))
        assert [row.verdict for row in newest_canaries(connection, "news@sender.test", 100)] == ["pass"] * KEPT
        assert len(newest_canaries(connection, "other@sender.test", 100)) == 1
