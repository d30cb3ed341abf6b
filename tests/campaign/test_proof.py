"""A proof is the real message by the real route, marked, and has no effect on the ledger or on a recipient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

import dkim
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from postroad.app.context import AppContext
from postroad.app.proof import MAX_PROOFS, Proof, ProofRequest, SentProof, make_proofs, send_proofs
from postroad.errors import ConfigError, DataError, StateError, UsageError
from postroad.mail.token import PROOFS, Purpose
from postroad.store.campaign import find_campaign
from postroad.store.engine import read, write
from postroad.store.suppression import SuppressionReason, suppress
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, TEXT, CampaignProject
from tests.campaign.tables import row_counts
from tests.kit.clock import FakeClock

SECOND = "  - wait: 1d\n  - email: again\n    subject: Again, {{ name }}\n    text: again.txt\n    html: again.html\n"
ME = "Me@Example.ORG"


class Receiver:
    """Accepts mail on loopback, except to an address that it refuses."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.reply = "250 2.0.0 taken"

    async def handle_RCPT(  # noqa: N802  (aiosmtpd)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd)
        self.envelopes.append(envelope)
        return self.reply

    @property
    def mails(self) -> list[EmailMessage]:
        contents = [envelope.content for envelope in self.envelopes]
        return [BytesParser(policy=policy.default).parsebytes(it) for it in contents if isinstance(it, bytes)]


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, int]]:
    receiver = Receiver()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(receiver, hostname="mx.example.org"), "127.0.0.1", 0)
    yield receiver, server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def context(project: CampaignProject, receiver: tuple[Receiver, int]) -> AsyncIterator[AppContext]:
    relay = f'host = "127.0.0.1"\nport = {receiver[1]}\ntls = "none"'
    config = CONFIG.replace('host = "smtp.example.com"', relay)
    more = 'route = "relay"\nbounce_domain = "b.example.com"\nreply_to = "answers+{token}@example.com"\n'
    project.configure('secret_key = "a key of the tests"\n' + config.replace('route = "relay"\n', more))
    project.template("again.txt", "Again, {{ name }} at {{ address }}\n" + TEXT)
    project.template("again.html", "<p>Again</p><a href='{{ unsubscribe_url }}'>bye</a> {{ postal_address }}")
    project.fill(["b@example.com,,Bob", "a@example.com,,Ada", "c@example.com,,"])
    project.apply(CAMPAIGN + SECOND)
    async with AsyncExitStack() as stack:
        yield AppContext(project.settings, project.engine, FakeClock(round(NOW.timestamp() * 1000)), stack)


async def sent(context: AppContext, *to: str, address: str | None = None, step: str | None = None) -> list[SentProof]:
    request = ProofRequest(campaign="spring", to=to or (ME,), address=address, step=step)
    return await send_proofs(context, await asyncio.to_thread(make_proofs, context, request, {}))


async def test_every_step_arrives_marked_and_the_store_is_not_changed(
    context: AppContext, receiver: tuple[Receiver, int]
) -> None:
    before = row_counts(context.engine)
    results = await sent(context)
    assert [(str(one.attempt), one.attempt.accepted) for one in results] == [("250 2.0.0 taken", True)] * 2
    first, second = receiver[0].mails
    assert [mail["Subject"] for mail in (first, second)] == ["[proof] Hello Ada", "[proof] Again, Ada"]
    assert {mail["To"] for mail in (first, second)} == {"me@example.org"}
    assert {address for envelope in receiver[0].envelopes for address in envelope.rcpt_tos} == {"me@example.org"}
    assert [mail["X-Postroad-Proof"] for mail in (first, second)] == [
        "campaign=spring; step=hello",
        "campaign=spring; step=again",
    ]
    body = second.get_body(("plain",))
    assert body is not None
    assert "Again, Ada at a@example.com" in body.get_content()
    assert first["Message-ID"] != second["Message-ID"]
    assert row_counts(context.engine) == before


async def test_a_proof_is_signed_as_the_senders_mail(context: AppContext, receiver: tuple[Receiver, int]) -> None:
    from postroad.mail.dkim_keys import load_keys

    await sent(context, step="hello")
    [key] = load_keys("news", context.settings.sender("news"), {})
    content = receiver[0].envelopes[0].content
    assert dkim.verify(content, dnsfunc=lambda name, timeout=5: key.record.encode())


async def test_a_proof_can_be_of_one_step_for_another_member(
    context: AppContext, receiver: tuple[Receiver, int]
) -> None:
    await sent(context, address="B@example.com", step="again")
    [mail] = receiver[0].mails
    assert mail["Subject"] == "[proof] Again, Bob"


async def test_every_token_of_a_proof_is_of_no_touch(context: AppContext, receiver: tuple[Receiver, int]) -> None:
    first, second = await sent(context)
    for proof in (first.proof, second.proof):
        numbers = set()
        text = proof.message.content.decode()
        for purpose, before in (
            (Purpose.MESSAGE_ID, "Message-ID: <"),
            (Purpose.UNSUBSCRIBE, "List-Unsubscribe: <https://post.example.com/u/"),
            (Purpose.REPLY, "Reply-To: answers+"),
        ):
            token = text.partition(before)[2][:60].replace("\r\n ", "")
            token = token.partition("@")[0].partition(">")[0]
            number = context.signer.read(purpose, token)
            assert number is not None, (before, token)
            numbers.add(number)
        token = proof.message.return_path.removeprefix("bounce+").partition("@")[0]
        numbers.add(context.signer.read(Purpose.BOUNCE, token) or 0)
        assert len(numbers) == 1
        assert numbers.pop() in PROOFS


async def test_several_addresses_each_get_every_step(context: AppContext, receiver: tuple[Receiver, int]) -> None:
    results = await sent(context, "one@example.org", "two@example.org", "One@example.org", step="hello")
    assert [one.proof.to for one in results] == ["one@example.org", "two@example.org"]
    assert len({one.proof.message.message_id for one in results}) == 2


@pytest.mark.parametrize("key", ["me@example.org", "@example.org", "#hash"])
async def test_a_suppressed_address_gets_no_proof(
    context: AppContext, receiver: tuple[Receiver, int], key: str
) -> None:
    with write(context.engine) as connection:
        stored = context.hash_of("me@example.org") if key == "#hash" else key
        suppress(connection, [stored], SuppressionReason.UNSUBSCRIBE, "test", NOW)
    with pytest.raises(StateError, match=r"me@example.org is suppressed \(unsubscribe\)"):
        await sent(context, "me@example.org")
    assert receiver[0].envelopes == []


async def test_a_suppression_for_another_audience_does_not_count(
    context: AppContext, receiver: tuple[Receiver, int]
) -> None:
    with write(context.engine) as connection:
        other = find_campaign(connection, "spring").audience_id + 1
        suppress(connection, ["me@example.org"], SuppressionReason.UNSUBSCRIBE, "test", NOW, other)
    assert len(await sent(context, "me@example.org")) == 2
    with read(context.engine) as connection:
        audience = find_campaign(connection, "spring").audience_id
    with write(context.engine) as connection:
        suppress(connection, ["me@example.org"], SuppressionReason.UNSUBSCRIBE, "test", NOW, audience)
    with pytest.raises(StateError, match="is suppressed"):
        await sent(context, "me@example.org")


async def test_the_reply_of_the_server_is_shown_and_the_others_continue(context: AppContext) -> None:
    results = await sent(context, "refused@example.org", "me@example.org", step="hello")
    assert [(one.attempt.accepted, str(one.attempt)) for one in results] == [
        (False, "550 5.1.1 no such user"),
        (True, "250 2.0.0 taken"),
    ]


async def test_a_relay_that_is_unreachable_is_shown(context: AppContext, project: CampaignProject) -> None:
    text = (project.folder / "postroad.toml").read_text()
    project.configure(text.replace(f"port = {context.settings.routes['relay'].port}", "port = 1"))
    context.settings = project.settings
    [first, _] = await sent(context)
    assert not first.attempt.accepted
    assert first.attempt.reply is None
    assert "127.0.0.1" in str(first.attempt)


async def test_a_bad_request_names_its_fault(context: AppContext) -> None:
    for address in ("me", "a@b@c.example", "", "me@example.org\r\nBcc: x@example.org"):
        with pytest.raises(UsageError, match="not a valid address"):
            await sent(context, address)
    with pytest.raises(StateError, match="no email step of campaign spring named 'helo'"):
        await sent(context, step="helo")
    with pytest.raises(StateError, match=r"x@example.com is not in the audience"):
        await sent(context, address="x@example.com")
    with pytest.raises(DataError, match="'name' is undefined"):
        await sent(context, address="c@example.com", step="again")
    with pytest.raises(UsageError, match=f"more than {MAX_PROOFS} messages"):
        await sent(context, *(f"r{number}@example.org" for number in range(MAX_PROOFS)))


async def test_a_route_that_is_not_configured_is_an_error(context: AppContext) -> None:
    request = ProofRequest(campaign="spring", to=(ME,))
    [proof, *_] = await asyncio.to_thread(make_proofs, context, request, {})
    other = Proof(**{**vars(proof), "route": "gone"})
    with pytest.raises(ConfigError, match="no route named 'gone'"):
        await send_proofs(context, [other])
