"""Each fault at each phase: the client's view, and the log of accepted messages."""

from __future__ import annotations

import asyncio

import pytest

from postroad.sandbox import ConnectionEnding, Fault, RulePhase, Sandbox, SandboxRule
from tests.kit.clock import SleepingClock
from tests.kit.waiting import until
from tests.sandbox.client import Wire
from tests.sandbox.conftest import Bench

ON_THE_WAY = [
    RulePhase.CONNECT,
    RulePhase.EHLO,
    RulePhase.MAIL,
    RulePhase.RCPT,
    RulePhase.DATA,
    RulePhase.DOT,
    RulePhase.QUIT,
]


async def up_to(wire: Wire, phase: RulePhase) -> None:
    """Run the commands before a phase, then send its command without waiting for the reply."""
    before = {
        RulePhase.EHLO: b"EHLO client.test\r\n",
        RulePhase.MAIL: b"MAIL FROM:<ann@from.test>\r\n",
        RulePhase.RCPT: b"RCPT TO:<bob@to.test>\r\n",
        RulePhase.DATA: b"DATA\r\n",
        RulePhase.DOT: b"Subject: hi\r\n\r\nhello\r\n.\r\n",
        RulePhase.QUIT: b"QUIT\r\n",
    }
    for step, command in before.items():
        if ON_THE_WAY.index(step) > ON_THE_WAY.index(phase):
            return
        await wire.reply()
        wire.send(command)


async def faulty(bench: Bench, phase: RulePhase, fault: Fault, clock: SleepingClock | None = None) -> Sandbox:
    return await bench.sandbox(clock=clock, rules=(SandboxRule(phase=phase, fault=fault),))


@pytest.mark.parametrize("phase", ON_THE_WAY)
async def test_a_421_is_said_and_the_connection_closed(bench: Bench, phase: RulePhase) -> None:
    sandbox = await faulty(bench, phase, Fault(reply="421 4.3.2 Come back\nlater"))
    wire = await bench.wire(sandbox)
    await up_to(wire, phase)
    assert await wire.rest() == b"421-4.3.2 Come back\r\n421 4.3.2 later\r\n"
    assert sandbox.counters.refused[phase] == 1
    assert len(sandbox.accepted()) == (phase is RulePhase.QUIT)
    wire.writer.close()
    await until(lambda: sandbox.counters.open_connections == 0)


@pytest.mark.parametrize("phase", [RulePhase.EHLO, RulePhase.MAIL, RulePhase.RCPT, RulePhase.DATA, RulePhase.DOT])
@pytest.mark.parametrize("code", ["450 4.2.1", "550 5.7.1"])
async def test_a_refusal_has_no_effect_and_the_session_goes_on(bench: Bench, phase: RulePhase, code: str) -> None:
    sandbox = await faulty(bench, phase, Fault(reply=f"{code} Not now"))
    wire = await bench.wire(sandbox)
    await up_to(wire, phase)
    assert await wire.reply() == f"{code} Not now"
    assert sandbox.accepted() == []
    sandbox.use([])
    assert (await wire.ask("EHLO client.test")).startswith("250")
    assert (await wire.deliver()).startswith("250")
    assert len(sandbox.accepted()) == 1


@pytest.mark.parametrize("phase", ON_THE_WAY)
async def test_a_drop_comes_instead_of_the_reply(bench: Bench, phase: RulePhase) -> None:
    sandbox = await faulty(bench, phase, Fault(ending=ConnectionEnding.DROP))
    wire = await bench.wire(sandbox)
    await up_to(wire, phase)
    assert await wire.rest() == b""
    assert sandbox.counters.dropped == 1
    assert len(sandbox.accepted()) == (phase is RulePhase.QUIT)


@pytest.mark.parametrize("phase", ON_THE_WAY)
async def test_a_reset_comes_instead_of_the_reply(bench: Bench, phase: RulePhase) -> None:
    sandbox = await faulty(bench, phase, Fault(ending=ConnectionEnding.RESET))
    wire = await bench.wire(sandbox)
    with pytest.raises(ConnectionResetError):  # noqa: PT012 - the reset may overtake a reply
        await up_to(wire, phase)
        await wire.rest()
    await until(lambda: sandbox.counters.open_connections == 0)


@pytest.mark.parametrize("phase", ON_THE_WAY)
async def test_a_reply_is_held_back_for_as_long_as_asked(
    bench: Bench, phase: RulePhase, sleeper: SleepingClock
) -> None:
    sandbox = await faulty(bench, phase, Fault(delay_ms=90_000), sleeper)
    wire = await bench.wire(sandbox)
    await up_to(wire, phase)
    await sleeper.asked_for(90.0)
    reply = asyncio.create_task(wire.reply())
    sleeper.advance(89_999)
    await asyncio.wait([reply], timeout=0.05)
    assert not reply.done()
    sleeper.advance(1)
    assert (await reply)[0] in "23"


@pytest.mark.parametrize("phase", ON_THE_WAY)
async def test_a_hang_lasts_until_the_client_gives_up(bench: Bench, phase: RulePhase) -> None:
    sandbox = await faulty(bench, phase, Fault(ending=ConnectionEnding.HANG))
    wire = await bench.wire(sandbox)
    await up_to(wire, phase)
    await until(lambda: sandbox.counters.open_connections == 1)
    wire.writer.transport.abort()
    await until(lambda: sandbox.counters.open_connections == 0)


async def test_a_reply_trickles_octet_by_octet(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await faulty(bench, RulePhase.MAIL, Fault(byte_delay_ms=50), sleeper)
    wire = await bench.hello(sandbox)
    wire.send(b"MAIL FROM:<a@b.test>\r\n")
    for octet in b"250 2.1.0 Ok\r":
        assert await wire.reader.readexactly(1) == bytes((octet,))
        await sleeper.asked_for(0.05)
        sleeper.advance(50)
    assert await wire.reader.readexactly(1) == b"\n"
    sandbox.use([])
    assert (await wire.ask("RCPT TO:<a@b.test>")).startswith("250")


@pytest.mark.parametrize(("keep", "kept"), [(False, 0), (True, 1)])
async def test_a_drop_after_the_dot_keeps_the_message_or_not(bench: Bench, keep: bool, kept: int) -> None:
    """The client cannot distinguish the two cases. The log can."""
    sandbox = await faulty(bench, RulePhase.DOT, Fault(ending=ConnectionEnding.DROP, keep=keep))
    wire = await bench.wire(sandbox)
    await up_to(wire, RulePhase.DOT)
    assert await wire.rest() == b""
    assert len(sandbox.accepted()) == kept
    assert sandbox.counters.kept_unsaid == kept
    assert sandbox.counters.accepted == 0


async def test_a_message_may_be_kept_although_it_was_refused(bench: Bench) -> None:
    sandbox = await faulty(bench, RulePhase.DOT, Fault(reply="451 4.3.0 Try again", keep=True))
    wire = await bench.hello(sandbox)
    assert await wire.deliver() == "451 4.3.0 Try again"
    assert len(sandbox.accepted()) == 1


async def test_a_fault_can_change_the_250_and_end_the_session(bench: Bench) -> None:
    sandbox = await faulty(bench, RulePhase.DOT, Fault(reply="250 ok dirdel", ending=ConnectionEnding.CLOSE))
    wire = await bench.hello(sandbox)
    assert await wire.deliver() == "250 ok dirdel"
    assert await wire.rest() == b""
    assert len(sandbox.accepted()) == 1


async def test_replies_before_a_drop_in_a_group_still_arrive(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    wire = await bench.hello(sandbox)
    wire.send(b"MAIL FROM:<a@from.test>\r\nRCPT TO:<ok@to.test>\r\nRCPT TO:<b+drop@to.test>\r\nDATA\r\n")
    assert await wire.rest() == b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"


async def test_commands_during_a_delay_are_answered_after_it(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await faulty(bench, RulePhase.MAIL, Fault(delay_ms=1000), sleeper)
    wire = await bench.hello(sandbox)
    wire.send(b"MAIL FROM:<a@from.test>\r\nRCPT TO:<ok@to.test>\r\nDATA\r\n")
    await sleeper.asked_for(1.0)
    sleeper.advance(1000)
    assert [(await wire.reply())[:3] for _ in range(3)] == ["250", "250", "354"]


async def test_what_came_before_a_delay_is_answered_before_it(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await faulty(bench, RulePhase.RCPT, Fault(delay_ms=1000), sleeper)
    wire = await bench.hello(sandbox)
    wire.send(b"MAIL FROM:<a@from.test>\r\nRCPT TO:<ok@to.test>\r\n")
    assert await wire.reply() == "250 2.1.0 Ok"
    await sleeper.asked_for(1.0)
    sleeper.advance(1000)
    assert await wire.reply() == "250 2.1.5 Ok"


async def test_a_half_closed_client_still_gets_delayed_replies(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await faulty(bench, RulePhase.MAIL, Fault(delay_ms=1000), sleeper)
    wire = await bench.hello(sandbox)
    wire.send(b"MAIL FROM:<a@from.test>\r\nRSET\r\n")
    wire.writer.write_eof()
    await sleeper.asked_for(1.0)
    sleeper.advance(1000)
    assert await wire.rest() == b"250 2.1.0 Ok\r\n250 2.0.0 Ok\r\n"
