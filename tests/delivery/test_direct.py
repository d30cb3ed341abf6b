"""Mail that goes straight to each domain's mail hosts: sandboxes play them, a nameserver of ours names them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from postroad.delivery.outcome import NoMailHostError, UnreachableReason, classify_unreachable
from postroad.delivery.result import DeliveryVerdict
from postroad.dns.providers import site_of
from postroad.errors import Blame
from postroad.smtp.breaker import FAILURES_IN_A_ROW, PAUSES_MS
from postroad.smtp.endpoint import LocalBinding
from postroad.smtp.errors import TransportError
from tests.delivery.direct_world import ZONE, World, obstacle_to, obstacle_to_reply, send_to, shaping_of
from tests.dns.nameserver import Nameserver, Trouble
from tests.smtp.conftest import Marks, message
from tests.smtp.scripted import ScriptedServer


async def test_domains_find_their_hosts(world: World) -> None:
    await world.host(1)
    await world.host(2)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        for domain in ("two", "address", "alias", "aliased-host", "half-dangling"):
            assert (await route.send(message(recipient=f"ada@{domain}.example"), Marks())).code == 250
        for number in range(20):
            await route.send(message(recipient=f"ada{number}@equal.example"), Marks())
    taken = {last: Counter(address.partition("@")[2] for address in found) for last, found in world.taken().items()}
    assert taken[1]["two.example"] == taken[1]["address.example"] == taken[1]["alias.example"] == 1
    assert taken[2]["aliased-host.example"] == taken[2]["half-dangling.example"] == 1
    assert taken[1]["equal.example"] > 2
    assert taken[2]["equal.example"] > 2


async def test_one_host_of_many_domains_has_one_warm_session(world: World) -> None:
    await world.host(1)
    zone = {f"d{number}.example": {"MX": ["10 mx1.two.example."]} for number in range(10)}
    async with Nameserver(ZONE | zone) as server:
        route = await world.route(server)
        for domain in zone:
            await route.send(message(recipient=f"ada@{domain}"), Marks())
        assert server.asked["mx1.two.example", "A"] == 1
    assert world.hosts[1].counters.connections == 1


@pytest.mark.parametrize(
    ("domain", "obstacle"),
    [
        ("null.example", UnreachableReason.TAKES_NO_MAIL),
        ("nobody.example", UnreachableReason.NO_SUCH_DOMAIN),
        ("nothing.example", UnreachableReason.NO_SUCH_DOMAIN),
        ("dangling.example", UnreachableReason.NO_SUCH_HOST),
        ("us.example", UnreachableReason.LOOP),
        ("servfail.example", UnreachableReason.NO_ANSWER),
        ("silent.example", UnreachableReason.NO_ANSWER),
        ("host-servfail.example", UnreachableReason.NO_ANSWER),
        ("round.example", UnreachableReason.NO_ANSWER),
    ],
)
async def test_what_dns_says_of_a_domain_that_cannot_be_reached(
    world: World, domain: str, obstacle: UnreachableReason
) -> None:
    await world.host(1)
    troubles = {
        "servfail.example": Trouble.SERVFAIL,
        "silent.example": Trouble.SILENT,
        "unwell.example": Trouble.SERVFAIL,
    }
    async with Nameserver(ZONE, troubles=troubles) as server:
        error = await obstacle_to(await world.route(server), f"ada@{domain}")
    assert error.kind is obstacle
    assert error.reason
    assert world.taken() == {1: []}


BOUNCED, DEFER, DEAD = DeliveryVerdict.BOUNCED, DeliveryVerdict.DEFER, DeliveryVerdict.DEAD


@pytest.mark.parametrize(
    ("obstacle", "verdict", "blame", "suppress"),
    [
        (UnreachableReason.TAKES_NO_MAIL, BOUNCED, Blame.RECIPIENT, True),
        (UnreachableReason.NO_SUCH_DOMAIN, BOUNCED, Blame.RECIPIENT, True),
        (UnreachableReason.NO_SUCH_HOST, BOUNCED, Blame.HOST, False),
        (UnreachableReason.NOT_PUBLIC, BOUNCED, Blame.HOST, False),
        (UnreachableReason.BUSY, DEFER, Blame.HOST, False),
        (UnreachableReason.LOOP, DEAD, Blame.US, False),
        (UnreachableReason.NO_ANSWER, DEFER, Blame.HOST, False),
        (UnreachableReason.HOSTS_DOWN, DEFER, Blame.HOST, False),
        (UnreachableReason.POLICY, DEFER, Blame.HOST, False),
    ],
)
def test_what_an_obstacle_means(
    obstacle: UnreachableReason, verdict: DeliveryVerdict, blame: Blame, suppress: bool
) -> None:
    outcome = classify_unreachable(NoMailHostError(obstacle, "unreachable"), deferrals=0)
    assert (outcome.verdict, outcome.blame, outcome.suppress, outcome.pause) == (verdict, blame, suppress, None)
    assert (outcome.delay_ms is not None) is (verdict is DEFER)


async def test_the_next_host_takes_what_the_best_would_not_begin(world: World) -> None:
    first = await world.host(1)
    await world.host(2)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        await first.__aexit__(None, None, None)
        for number in range(10):
            assert (await route.send(message(recipient=f"ada{number}@two.example"), Marks())).code == 250
        assert [breaker.name for breaker in route.breakers] == [f"mx1.two.example:{world.port}"]
        assert route.breakers[0].failures == FAILURES_IN_A_ROW
    assert len(world.taken()[2]) == 10


async def test_hosts_that_are_down_defer_their_own_domains_only_and_are_tried_again(world: World) -> None:
    first = await world.host(1)
    await world.host(2)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        await first.__aexit__(None, None, None)
        for _ in range(FAILURES_IN_A_ROW + 2):
            assert (await obstacle_to(route, "ada@address.example")).kind is UnreachableReason.HOSTS_DOWN
        assert (await route.send(message(recipient="ada@aliased-host.example"), Marks())).code == 250
        await world.host(1)
        world.clock.advance(PAUSES_MS[0])
        assert (await route.send(message(recipient="ada@address.example"), Marks())).code == 250


async def test_a_reply_is_the_hosts_own_and_ends_the_search(world: World) -> None:
    await world.host(1)
    await world.host(2)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        assert (await route.send(message(recipient="a+bounce@two.example"), Marks())).code == 550
        assert (await route.send(message(recipient="a+defer@two.example"), Marks())).code // 100 == 4
        with pytest.raises(TransportError) as caught:
            await route.send(message(recipient="a+drop-after-dot@two.example"), Marks())
        assert caught.value.unknown
        assert (await obstacle_to_reply(route, "a+530-5.7.0-at-rcpt@two.example")).kind is UnreachableReason.HOSTS_DOWN
    assert world.taken() == {1: [], 2: []}


async def test_mail_leaves_from_the_senders_address_under_the_senders_name(world: World) -> None:
    await world.host(1)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        origin = LocalBinding(source_address="127.0.0.5", helo="news.sender.example")
        await route.send(message(recipient="ada@two.example"), Marks(), origin)
    kept = next(path for path in world.hosts[1].maildir_path.rglob("*") if path.is_file()).read_text()
    assert "news.sender.example" in kept
    assert "127.0.0.5" in kept


@pytest.mark.parametrize(
    ("text", "sender", "connections"),
    [
        ("", None, 4),  # as the route says: three messages each
        ("[default]\nmessages_per_connection = 2", None, 5),
        ("[default]\nmessages_per_connection = 50", None, 4),  # the route's own is the most
        ("[default]\nmessages_per_connection = 2\n[domain.'two.example']\nmessages_per_connection = 3", None, 4),
        ("[site.'mx1.two.example+22a4e8b6']\nmessages_per_connection = 1", None, 10),
        ("[domain.'two.example'.sender.'a@x.example']\nmessages_per_connection = 1", "a@x.example", 10),
        ("[domain.'two.example'.sender.'a@x.example']\nmessages_per_connection = 1", "b@x.example", 4),
    ],
)
async def test_a_connection_carries_as_much_as_the_receiver_allows(
    world: World, tmp_path: Path, text: str, sender: str | None, connections: int
) -> None:
    await world.host(1)
    await world.host(2)
    text = text.replace("mx1.two.example+22a4e8b6", site_of("two.example", ("mx1.two.example", "mx2.two.example")))
    async with Nameserver(ZONE) as server:
        route = await world.route(server, shaping=shaping_of(tmp_path, text), messages_per_connection=3)
        await send_to(route, *(f"ada{number}@two.example" for number in range(10)), sender=sender)
    assert world.hosts[1].counters.connections == connections


async def test_no_more_connections_than_the_receiver_allows(world: World, tmp_path: Path) -> None:
    await world.host(1)
    await world.host(2)
    shaping = shaping_of(tmp_path, '[domain."two.example"]\nconnections = 2')
    async with Nameserver(ZONE) as server:
        route = await world.route(server, shaping=shaping, connections=4)
        # Slow replies: no connection is free again before the next message needs one, however slow the machine is.
        await asyncio.gather(*(send_to(route, f"ada{number}+slow-500ms@two.example") for number in range(12)))
        await asyncio.gather(*(send_to(route, f"ada{number}+slow-500ms@aliased-host.example") for number in range(12)))
    assert (world.hosts[1].counters.connections, world.hosts[2].counters.connections) == (2, 4)


async def test_what_a_host_said_is_heard_although_another_was_down(world: World) -> None:
    async with ScriptedServer({"CONNECT": "421 4.7.0 too many connections"}) as busy, Nameserver(ZONE) as server:
        world.port = busy.port
        route = await world.route(server)
        zone = {
            "first.example": {"MX": ["5 away.example.", "10 mx1.two.example."]},
            "away.example": {"A": ["127.0.0.9"]},
        }
        server.zone |= zone
        error = await obstacle_to_reply(route, "ada@first.example")
    assert error.reply is not None
    assert (error.reply.code, error.reply.text) == (421, "too many connections")


async def test_many_at_once_ask_dns_once(world: World) -> None:
    await world.host(1)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        sends = [route.send(message(recipient=f"a{n}@address.example"), Marks()) for n in range(100)]
        replies = await asyncio.gather(*sends)
        assert {reply.code for reply in replies} == {250}
        assert set(server.asked.values()) == {1}
