"""Many messages that are signed at once: each gets its own signatures, whatever becomes of its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from postroad.delivery.signing import TOGETHER, Signing
from postroad.mail.dkim import Algorithm, DkimKey, DkimSigner, generate_key, read_key
from postroad.mail.message import CompiledMessage, Message, compile_message
from tests.mail.conftest import SIGNER, sender

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
MANY = 3 * TOGETHER + 1


@pytest.fixture
def signing() -> Iterator[Signing]:
    signing = Signing(threads=2)
    yield signing
    signing.close()


@pytest.fixture(scope="module")
def template() -> CompiledMessage:
    private_key = read_key(generate_key(Algorithm.RSA), where="test")
    key = DkimKey(domain="example.com", selector="a", private_key=private_key, since=None)
    return compile_message(
        sender=sender(),
        subject="Hello",
        text="Hello {{ name }}",
        html=None,
        signer=SIGNER,
        public_url="https://mail.example.com",
        dkim=DkimSigner([key]),
    )


def merged(template: CompiledMessage, number: int) -> Message:
    return template.merge(number, f"r{number}@example.org", {"name": f"Reader {number}"}, NOW)


async def test_each_gets_its_own(signing: Signing, template: CompiledMessage) -> None:
    messages = [merged(template, number) for number in range(MANY)]
    signed = await asyncio.gather(*(signing.signed(message) for message in messages))
    assert [message.content for message in signed] == [message.signed().content for message in messages]
    assert len({message.content for message in signed}) == MANY
    assert not any(message.unsigned for message in signed)


async def test_who_gave_up_is_no_trouble_for_the_others(signing: Signing, template: CompiledMessage) -> None:
    asked = [asyncio.create_task(signing.signed(merged(template, number))) for number in range(MANY)]
    await asyncio.sleep(0)
    for task in asked[::3]:
        task.cancel()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [n % 3 == 0 for n in range(MANY)]
    assert (await signing.signed(merged(template, 1))).content == merged(template, 1).signed().content


async def test_behind_its_end_it_says_so(signing: Signing, template: CompiledMessage) -> None:
    signing.close()
    with pytest.raises(RuntimeError):
        await signing.signed(merged(template, 1))
