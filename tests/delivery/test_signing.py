"""Many messages that are signed at once: each gets its own signatures, whatever becomes of its neighbours."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postroad.delivery.signing import MAX_BATCH, SigningPool
from postroad.mail.dkim import Algorithm, DkimKey, DkimSigner, generate_key, parse_key
from postroad.mail.message import CompiledMessage, Message, MessageSource, compile_message
from tests.mail.conftest import SIGNER, sender
from tests.prefect.processes import living

CHECKOUT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
MANY = 3 * MAX_BATCH + 1


@pytest.fixture
async def signing() -> AsyncIterator[SigningPool]:
    signing = SigningPool(processes=2)
    yield signing
    await signing.aclose()


def signers(parent: int | None = None) -> list[int]:
    """The processes that sign for us, or for another process."""
    listed = subprocess.run(
        ["ps", "-wweo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    processes = [line.split(maxsplit=3) for line in listed.splitlines()]
    return [
        int(pid)
        for pid, of, state, arguments in processes
        if int(of) == (parent or os.getpid())
        and "postroad.delivery.signing_worker" in arguments
        and not state.startswith("Z")
    ]


def a_key(algorithm: Algorithm) -> DkimKey:
    private_key = parse_key(generate_key(algorithm), where="test")
    return DkimKey(domain="example.com", selector=algorithm[:3], private_key=private_key, active_from=None)


def a_template(*keys: DkimKey) -> CompiledMessage:
    return compile_message(
        MessageSource(subject="Hello", text="Hello {{ name }}"),
        sender=sender(),
        signer=SIGNER,
        public_url="https://mail.example.com",
        dkim=DkimSigner(keys),
    )


@pytest.fixture(scope="module")
def template() -> CompiledMessage:
    return a_template(a_key(Algorithm.RSA))


def merged(template: CompiledMessage, number: int) -> Message:
    return template.merge(number, f"r{number}@example.org", {"name": f"Reader {number}"}, NOW)


async def test_each_gets_its_own(signing: SigningPool, template: CompiledMessage) -> None:
    messages = [merged(template, number) for number in range(MANY)]
    signed = await asyncio.gather(*(signing.signed(message) for message in messages))
    assert [message.content for message in signed] == [message.signed().content for message in messages]
    assert len({message.content for message in signed}) == MANY
    assert not any(message.pending_signatures for message in signed)


async def test_who_gave_up_is_no_trouble_for_the_others(signing: SigningPool, template: CompiledMessage) -> None:
    asked = [asyncio.create_task(signing.signed(merged(template, number))) for number in range(MANY)]
    await asyncio.sleep(0)
    for task in asked[::3]:
        task.cancel()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [n % 3 == 0 for n in range(MANY)]
    assert (await signing.signed(merged(template, 1))).content == merged(template, 1).signed().content


async def test_messages_of_several_senders_and_with_several_signatures(signing: SigningPool) -> None:
    """An answer says nothing of whose signature it is but by its place."""
    templates = [
        a_template(a_key(Algorithm.RSA), a_key(Algorithm.ED25519)),
        a_template(a_key(Algorithm.RSA)),
        a_template(a_key(Algorithm.ED25519)),
    ]
    messages = [merged(templates[number % 3], number) for number in range(MANY)]
    signed = await asyncio.gather(*(signing.signed(message) for message in messages))
    assert [message.content for message in signed] == [message.signed().content for message in messages]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_that_dies_or_hangs_costs_no_signature(
    signing: SigningPool, template: CompiledMessage, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroad.delivery.signing.SIGNING_TIMEOUT_S", 3.0)
    await asyncio.gather(*(signing.signed(merged(template, number)) for number in range(MANY)))
    before = signers()
    for pid in before:
        os.kill(pid, how)
    messages = [merged(template, number) for number in range(MANY)]
    signed = await asyncio.gather(*(signing.signed(message) for message in messages))
    assert [message.content for message in signed] == [message.signed().content for message in messages]
    await asyncio.gather(*(signing.signed(merged(template, number)) for number in range(MANY)))
    assert len(signers()) == len(before)
    assert not set(signers()) & set(before)


async def test_a_signal_to_all_leaves_it_to_us_when_it_ends(signing: SigningPool, template: CompiledMessage) -> None:
    await signing.signed(merged(template, 1))
    [signer] = signers()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(signer, number)
    assert (await signing.signed(merged(template, 2))).content == merged(template, 2).signed().content
    assert signers() == [signer]


async def test_it_ends_with_its_parent_and_has_no_key_in_its_command_line() -> None:
    code = (
        "import asyncio, time\n"
        "from tests.delivery.test_signing import Algorithm, SigningPool, a_key, a_template, merged\n"
        "async def main():\n"
        "    await SigningPool(processes=1).signed(merged(a_template(a_key(Algorithm.RSA)), 1))\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"up\n"
    [signer] = signers(parent.pid)
    shown = Path(f"/proc/{signer}")
    if shown.is_dir():
        assert b"PRIVATE" not in (shown / "cmdline").read_bytes() + (shown / "environ").read_bytes()
    parent.kill()
    await parent.wait()
    until_s = time.monotonic() + 10
    while living([signer]):
        assert time.monotonic() < until_s
        await asyncio.sleep(0.02)


async def test_a_closed_pool_signs_no_message(signing: SigningPool, template: CompiledMessage) -> None:
    await signing.signed(merged(template, 1))
    assert signers()
    await signing.aclose()
    assert not signers()
    with pytest.raises(RuntimeError):
        await signing.signed(merged(template, 1))
