"""A route of several relays: shares, failover, and circuit breakers."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

from postroad.clock import Clock
from postroad.delivery.outcome import classify_transport_error
from postroad.delivery.result import Pause
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.smtp.breaker import FAILURES_IN_A_ROW, PAUSES_MS, WINDOW, Breaker, BreakerState
from postroad.smtp.endpoint import LocalBinding
from postroad.smtp.errors import TransportError
from postroad.smtp.pools import Pools
from postroad.smtp.relays import Relay, RelayRoute
from postroad.smtp.reply import Phase
from tests.kit.clock import SleepingClock
from tests.smtp.conftest import QUICK, Marks, message, nothing, route
from tests.smtp.scripted import EXTENSIONS, Act, Answer, ScriptedServer


def relays_at(clock: Clock, *ports: int, weights: tuple[int, ...] = (1, 1, 1)) -> list[Relay]:
    return [
        Relay(route(port), weight, Breaker(f"relay {number}", clock))
        for number, (port, weight) in enumerate(zip(ports, weights, strict=False))
    ]


def test_breaker_opens_after_failures_and_probes_with_backoff() -> None:
    clock = SleepingClock()
    breaker = Breaker("x", clock)
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed("down")
    breaker.succeeded()
    for _ in range(FAILURES_IN_A_ROW):
        assert breaker.allow()
        breaker.failed("down")
    for pause_ms in (*PAUSES_MS, PAUSES_MS[-1]):
        states = [breaker.state]
        clock.advance(pause_ms - 1)
        assert not breaker.allow()
        clock.advance(1)
        assert breaker.allow()
        states.append(breaker.state)
        assert states == [BreakerState.OPEN, BreakerState.HALF_OPEN]
        assert not breaker.allow()  # one is enough to find out
        breaker.failed("down")
    clock.advance(PAUSES_MS[-1])
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.allow()
    assert breaker.allow()


def test_a_breaker_opens_when_half_of_the_last_failed() -> None:
    breaker = Breaker("x", SleepingClock())
    for number in range(WINDOW):
        assert breaker.state is BreakerState.CLOSED
        if number % 2:
            breaker.failed("now and then")
        else:
            breaker.succeeded()
    assert breaker.state is BreakerState.OPEN


def test_failures_in_flight_do_not_prolong_a_pause() -> None:
    clock = SleepingClock()
    breaker = Breaker("x", clock)
    for _ in range(10):
        breaker.failed("down")
    assert breaker.until_ms == clock.now_ms() + PAUSES_MS[0]


def test_a_probe_that_is_taken_back_is_no_answer() -> None:
    clock = SleepingClock()
    breaker = Breaker("x", clock)
    for _ in range(FAILURES_IN_A_ROW):
        breaker.failed("down")
    clock.advance(PAUSES_MS[0])
    assert breaker.allow()
    breaker.release()
    assert breaker.allow()


async def test_relays_share_by_weight() -> None:
    async with ScriptedServer() as heavy, ScriptedServer() as light, Pools(QUICK) as pools:
        relays = relays_at(SleepingClock(), heavy.port, light.port, weights=(3, 1))
        out = RelayRoute(relays, pools, Random(7))
        for _ in range(200):
            assert (await out.send(message(), nothing)).code == 250
        assert len(heavy.bodies) + len(light.bodies) == 200
        assert 130 < len(heavy.bodies) < 170


@pytest.mark.parametrize(
    "answers",
    [
        {"CONNECT": "421 4.3.2 not now"},
        {"CONNECT": "554 5.7.1 not you"},
        {"CONNECT": Act.DROP},
        {"EHLO": Act.RESET},
        {"MAIL": Act.DROP},
    ],
    ids=str,
)
async def test_what_a_relay_would_not_begin_goes_to_the_next(answers: dict[str, Answer | list[Answer]]) -> None:
    clock = SleepingClock()
    async with ScriptedServer(answers) as bad, ScriptedServer() as good, Pools(QUICK) as pools:
        out = RelayRoute(relays_at(clock, bad.port, good.port), pools, Random(7))
        marks = Marks()
        for _ in range(20):
            assert (await out.send(message(), marks)).code == 250
        assert (len(good.bodies), marks.count) == (20, 20)
        # It is not used during the pause, and probed afterwards.
        assert len(bad.connections) == FAILURES_IN_A_ROW
        assert not out.relays[0].breaker.admits
        bad.answers.clear()
        clock.advance(PAUSES_MS[0])
        for _ in range(40):
            await out.send(message(), nothing)
        assert bad.bodies
        assert out.relays[0].breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("verb", ["RCPT", "DATA", "DOT"])
async def test_what_a_relay_has_begun_goes_to_no_other(verb: str) -> None:
    async with ScriptedServer({verb: Act.DROP}) as bad, ScriptedServer() as good, Pools(QUICK) as pools:
        relays = relays_at(SleepingClock(), bad.port, good.port, weights=(1000, 1))
        out = RelayRoute(relays, pools, Random(7))
        for _ in range(6):
            with pytest.raises(TransportError) as caught:
                await out.send(message(), nothing)
            assert caught.value.unknown is (verb == "DOT")
        assert not good.connections
        assert relays[0].breaker.state is BreakerState.CLOSED  # an address that kills connections kills no relay


async def test_each_origin_has_its_own_way_to_each_relay() -> None:
    """Two accounts on one host are two relays."""
    server = ScriptedServer(extensions=(*EXTENSIONS, "AUTH PLAIN"))
    async with server, Pools(QUICK) as pools:
        logins = [route(server.port, username=name, password="pony") for name in ("ada", "bob")]
        out = RelayRoute([Relay(login, 1, Breaker("same", SleepingClock())) for login in logins], pools, Random(7))
        for number in range(30):
            origin = LocalBinding(source_address=f"127.0.0.{1 + number % 2}")
            assert (await out.send(message(), nothing, origin)).code == 250
        peers = {connection.writer.get_extra_info("peername")[0] for connection in server.connections}
        users = {b64decode(line.split()[2]).split(b"\0")[1] for line in server.commands if line.startswith(b"AUTH")}
        assert (peers, users) == ({"127.0.0.1", "127.0.0.2"}, {b"ada", b"bob"})
        assert len(server.connections) == 4


async def test_a_route_is_down_only_when_all_relays_are() -> None:
    answers: dict[str, Answer | list[Answer]] = {"CONNECT": "421 4.3.2 not now"}
    clock = SleepingClock()
    async with ScriptedServer(dict(answers)) as one, ScriptedServer(dict(answers)) as two, Pools(QUICK) as pools:
        out = RelayRoute(relays_at(clock, one.port, two.port), pools, Random(7))
        reasons = []
        for _ in range(6):
            with pytest.raises(TransportError) as caught:
                await out.send(message(), nothing)
            assert caught.value.phase is Phase.CONNECT
            assert classify_transport_error(caught.value).pause is Pause.ROUTE
            reasons.append(caught.value.reason)
        assert (len(one.connections), len(two.connections)) == (FAILURES_IN_A_ROW, FAILURES_IN_A_ROW)
        assert "relay 0, relay 1" in reasons[-1]
        one.answers.clear()
        clock.advance(PAUSES_MS[0])
        assert (await out.send(message(), nothing)).code == 250


async def test_relays_that_die_mid_run_lose_and_double_no_mail(tmp_path: Path) -> None:
    """Of three providers, one dies while mail flows, and later another. Unknown messages are not sent again."""
    async with AsyncExitStack() as stack:
        sandboxes = []
        for number in range(3):
            config = SandboxConfig(directory=str(tmp_path / f"sandbox-{number}"))
            sandboxes.append(Sandbox(config, rng=Random(number)))
            await sandboxes[-1].__aenter__()
        stack.push_async_callback(sandboxes[2].__aexit__, None, None, None)
        pools = await stack.enter_async_context(Pools(QUICK))
        out = RelayRoute(relays_at(SleepingClock(), *(sandbox.port for sandbox in sandboxes)), pools, Random(7))
        unknown: set[str] = set()

        async def deliver(address: str) -> None:
            for _ in range(20):
                try:
                    reply = await out.send(message(recipient=address), nothing)
                except TransportError as error:
                    if error.unknown:
                        unknown.add(address)
                        return
                else:
                    if reply.code == 250:
                        return
                    assert reply.code == 421  # It shut down after the body and did not accept it.
            raise AssertionError(address)

        async def run(first: int) -> None:
            await asyncio.gather(*(deliver(f"ada{number}@example.org") for number in range(first, first + 300)))

        async def kill(sandbox: Sandbox, after: int) -> None:
            async with asyncio.timeout(20):
                while len(sandbox.accepted()) < after:
                    await asyncio.sleep(0)
            await sandbox.__aexit__(None, None, None)

        await asyncio.gather(run(0), kill(sandboxes[0], 20))
        before = len(sandboxes[1].accepted())
        await asyncio.gather(run(300), kill(sandboxes[1], before + 20))
        taken = Counter(found.recipient for sandbox in sandboxes for found in sandbox.accepted())
    assert set(taken.values()) == {1}
    assert set(taken) | unknown == {f"ada{number}@example.org" for number in range(600)}
    assert len(unknown) < 60
