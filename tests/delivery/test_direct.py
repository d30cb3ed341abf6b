"""Mail that goes straight to each domain's mail hosts: sandboxes play them, a nameserver of ours names them."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postroad.delivery.destinations import Destinations
from postroad.delivery.direct import DirectRoute
from postroad.delivery.outcome import NoMailHostError, UnreachableReason, classify_unreachable
from postroad.delivery.result import DeliveryVerdict
from postroad.delivery.sts_policies import StsPolicies
from postroad.dns.providers import site_of
from postroad.dns.public_address import Network, networks
from postroad.dns.resolver import Resolver
from postroad.errors import Blame
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.settings import RouteKind, RouteSettings
from postroad.shaping.config import Shaping, read_shaping
from postroad.smtp.breaker import FAILURES_IN_A_ROW, PAUSES_MS
from postroad.smtp.endpoint import LocalBinding
from postroad.smtp.errors import TransportError
from postroad.smtp.pools import Pools
from postroad.smtp.tls import client_context
from tests.dns.nameserver import Nameserver, Trouble
from tests.https import Site, https
from tests.kit.clock import SleepingClock
from tests.smtp.conftest import QUICK, Certificates, Marks, message
from tests.smtp.scripted import ScriptedServer

ZONE = {
    "two.example": {"MX": ["10 mx1.two.example.", "20 mx2.two.example."]},
    "mx1.two.example": {"A": ["127.0.0.1"]},
    "mx2.two.example": {"A": ["127.0.0.2"]},
    "equal.example": {"MX": ["10 mx1.two.example.", "10 mx2.two.example."]},
    "address.example": {"A": ["127.0.0.1"]},
    "six.example": {"MX": ["10 mx6.example."]},
    "mx6.example": {"AAAA": ["::1"]},
    "null.example": {"MX": ["0 ."], "A": ["127.0.0.1"]},
    "nothing.example": {"TXT": ['"x"']},
    "dangling.example": {"MX": ["10 gone.example."], "A": ["127.0.0.1"]},
    "half-dangling.example": {"MX": ["5 gone.example.", "10 mx2.two.example."]},
    "alias.example": {"CNAME": ["two.example."]},
    "aliased-host.example": {"MX": ["10 mx-alias.example."]},
    "mx-alias.example": {"CNAME": ["mx2.two.example."]},
    "round.example": {"CNAME": ["about.example."]},
    "about.example": {"CNAME": ["round.example."]},
    "servfail.example": {"MX": ["10 mx1.two.example."]},
    "host-servfail.example": {"MX": ["10 unwell.example."]},
    "unwell.example": {"A": ["127.0.0.1"]},
    "us.example": {"MX": ["10 mail.sender.example.", "20 mx2.two.example."]},
    "mail.sender.example": {"A": ["127.0.0.1"]},
    "signed.example": {"MX": ["10 mx.signed.example."]},
    "mx.signed.example": {"A": ["127.0.0.1"]},
    "sts.example": {"MX": ["10 mx.sts.example."]},
    "mx.sts.example": {"A": ["127.0.0.1"]},
    "_mta-sts.sts.example": {"TXT": ['"v=STSv1; id=1;"']},
    "mta-sts.sts.example": {"A": ["127.0.0.1"]},
}
LOOPBACK = networks(["127.0.0.0/8", "::1"])
SIGNED = {"signed.example", "mx.signed.example"}
POLICY = "version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n"


class World:
    """Mail hosts at 127.0.0.1 and 127.0.0.2 on one port, a nameserver, and a direct route to them."""

    def __init__(self, folder: Path, engine: sa.Engine, certificates: Certificates, stack: AsyncExitStack) -> None:
        self.clock = SleepingClock()
        self.port = 0
        self.hosts: dict[int, Sandbox] = {}
        self._folder, self._engine, self._certificates, self._stack = folder, engine, certificates, stack

    async def host(self, last: int, *, tls: bool = True, names: tuple[str, ...] = ()) -> Sandbox:
        """Start the mail host at 127.0.0.last; what it shows is signed by the authority that the route trusts."""
        certificate = private_key = None
        if tls:
            certificates = self._certificates
            if names:
                (self._folder / f"tls-{last}").mkdir()
                certificates = Certificates(self._folder / f"tls-{last}", names=names)
            certificate, private_key = str(certificates.certificate), str(certificates.private_key)
        config = SandboxConfig(
            directory=str(self._folder / f"host-{last}"),
            host=f"127.0.0.{last}",
            port=self.port,
            certificate=certificate,
            private_key=private_key,
        )
        self.hosts[last] = await self._stack.enter_async_context(Sandbox(config, rng=Random(last)))
        self.port = self.hosts[last].port
        return self.hosts[last]

    async def route(
        self,
        server: Nameserver,
        *,
        site: Site | None = None,
        ca_file: Path | None = None,
        shaping: Shaping | None = None,
        allowed: Sequence[Network] = LOOPBACK,
        **settings: object,
    ) -> DirectRoute:
        usual = {"kind": RouteKind.DIRECT, "port": self.port, "helo": "mail.sender.example", "ca_file": ca_file}
        resolver = await self._stack.enter_async_context(
            Resolver(server.settings(trust_ad=True, timeout_ms=1_000), self.clock)
        )
        trust = client_context(site.ca_file if site is not None else None)
        policies = StsPolicies(
            resolver,
            self._engine,
            self.clock,
            trust,
            https_port=site.port if site is not None else 443,
            allowed=LOOPBACK,
        )
        pools = await self._stack.enter_async_context(Pools(QUICK))
        return DirectRoute(
            RouteSettings.model_validate(usual | settings),
            shaping=shaping,
            policies=policies,
            pools=pools,
            clock=self.clock,
            rng=Random(7),
            destinations=Destinations(allowed=allowed),
        )

    def taken(self) -> dict[int, list[str]]:
        return {last: [found.recipient for found in host.accepted()] for last, host in self.hosts.items()}


@pytest.fixture
async def world(tmp_path: Path, engine: sa.Engine, certificates: Certificates) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(tmp_path, engine, certificates, stack)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


async def obstacle_to(route: DirectRoute, address: str) -> NoMailHostError:
    marks = Marks()
    with pytest.raises(NoMailHostError) as caught:
        await route.send(message(recipient=address), marks)
    assert marks.count == 0
    return caught.value


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


async def obstacle_to_reply(route: DirectRoute, address: str) -> NoMailHostError:
    """Return an obstacle that a reply caused."""
    with pytest.raises(NoMailHostError) as caught:
        await route.send(message(recipient=address), Marks())
    assert caught.value.reply is not None
    return caught.value


async def test_mail_leaves_from_the_senders_address_under_the_senders_name(world: World) -> None:
    await world.host(1)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        origin = LocalBinding(source_address="127.0.0.5", helo="news.sender.example")
        await route.send(message(recipient="ada@two.example"), Marks(), origin)
    kept = next(path for path in world.hosts[1].maildir_path.rglob("*") if path.is_file()).read_text()
    assert "news.sender.example" in kept
    assert "127.0.0.5" in kept


async def test_tls_is_used_where_it_is_offered_whatever_the_certificate(world: World) -> None:
    await world.host(1, names=("somebody.else",))
    await world.host(2, tls=False)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        await route.send(message(recipient="ada@address.example"), Marks())
        await route.send(message(recipient="ada@aliased-host.example"), Marks())
    assert {last: len(found) for last, found in world.taken().items()} == {1: 1, 2: 1}
    assert (world.hosts[1].counters.secured, world.hosts[2].counters.secured) == (1, 0)


def shaping_of(folder: Path, text: str) -> Shaping:
    path = folder / "shaping.toml"
    path.write_text(text)
    return read_shaping(path)


async def send_to(route: DirectRoute, *addresses: str, sender: str | None = None) -> None:
    for address in addresses:
        reply = await route.send(message(recipient=address), Marks(), LocalBinding(sender=sender))
        assert reply.code == 250


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


@pytest.mark.parametrize(
    ("tls", "table", "offered", "secured"),
    [
        ("opportunistic", "domain.'address.example'", True, 1),
        ("opportunistic", "domain.'address.example'", False, None),
        ("none", "domain.'address.example'", True, 1),
        ("none", "domain.'two.example'", True, 0),  # another domain's
        ("none", "provider.google", True, 0),
        ("opportunistic", "default", False, None),
    ],
)
async def test_a_receiver_that_asks_for_tls_gets_nothing_in_the_clear(
    world: World, tmp_path: Path, tls: str, table: str, offered: bool, secured: int | None
) -> None:
    await world.host(1, tls=offered, names=("somebody.else",))
    shaping = shaping_of(tmp_path, f"[{table}]\ntls = 'required'")
    async with Nameserver(ZONE) as server:
        route = await world.route(server, shaping=shaping, tls=tls)
        if secured is None:
            assert (await obstacle_to(route, "ada@address.example")).kind is UnreachableReason.HOSTS_DOWN
            assert world.taken() == {1: []}
        else:
            await send_to(route, "ada@address.example")
            assert world.hosts[1].counters.secured == secured


async def test_google_is_known_by_its_hosts_and_gets_nothing_in_the_clear(world: World) -> None:
    await world.host(1, tls=False)
    zone = {"school.net": {"MX": ["1 aspmx.l.google.com."]}, "aspmx.l.google.com": {"A": ["127.0.0.1"]}}
    async with Nameserver(zone) as server:
        route = await world.route(server, shaping=read_shaping(None))
        assert (await obstacle_to(route, "ada@school.net")).kind is UnreachableReason.HOSTS_DOWN
    assert world.taken() == {1: []}


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


def tlsa_of(folder: Path) -> str:
    certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"3 1 1 {hashlib.sha256(key).hexdigest()}"


@pytest.mark.parametrize("right", [True, False])
async def test_dane_decides_where_dnssec_vouches_for_it(world: World, tmp_path: Path, right: bool) -> None:
    await world.host(1, names=("whatever.example",))
    record = tlsa_of(tmp_path / "tls-1") if right else f"3 1 1 {'00' * 32}"
    name = f"_{world.port}._tcp.mx.signed.example"
    async with Nameserver(ZONE | {name: {"TLSA": [record]}}, signed=SIGNED | {name}) as server:
        route = await world.route(server)
        if right:
            assert (await route.send(message(recipient="ada@signed.example"), Marks())).code == 250
        else:
            error = await obstacle_to(route, "ada@signed.example")
            assert error.kind is UnreachableReason.HOSTS_DOWN
            assert "TLSA" in error.reason


async def test_unsigned_tlsa_records_are_ignored(world: World) -> None:
    await world.host(1)
    name = f"_{world.port}._tcp.mx.signed.example"
    async with Nameserver(ZONE | {name: {"TLSA": [f"3 1 1 {'00' * 32}"]}}) as server:
        route = await world.route(server)
        assert (await route.send(message(recipient="ada@signed.example"), Marks())).code == 250
        assert not server.asked[name, "TLSA"]


async def test_no_answer_about_certificates_where_dns_is_signed_is_no_delivery(world: World) -> None:
    """RFC 7672 §2.1: otherwise an attacker who suppresses the answer removes the protection."""
    await world.host(1)
    name = f"_{world.port}._tcp.mx.signed.example"
    async with Nameserver(ZONE, signed=SIGNED, troubles={name: Trouble.SERVFAIL}) as server:
        route = await world.route(server)
        assert (await obstacle_to(route, "ada@signed.example")).kind is UnreachableReason.NO_ANSWER
    assert world.taken() == {1: []}


async def test_a_signed_host_without_tls_and_with_tlsa_gets_nothing_in_the_clear(world: World) -> None:
    await world.host(1, tls=False)
    name = f"_{world.port}._tcp.mx.signed.example"
    zone: Mapping[str, Mapping[str, list[str]]] = ZONE | {name: {"TLSA": ["0 0 1 " + "00" * 32]}}
    async with Nameserver(zone, signed=SIGNED | {name}) as server:
        route = await world.route(server)
        assert (await obstacle_to(route, "ada@signed.example")).kind is UnreachableReason.HOSTS_DOWN
    assert world.taken() == {1: []}


@pytest.mark.parametrize(
    ("mode", "mx", "names", "delivered"),
    [
        ("enforce", "mx.sts.example", ("mx.sts.example",), True),
        ("enforce", "*.sts.example", ("mx.sts.example",), True),
        ("enforce", "mx.sts.example", ("other.example",), False),
        ("enforce", "elsewhere.example", ("mx.sts.example",), False),
        ("testing", "elsewhere.example", ("other.example",), True),
        ("none", "elsewhere.example", ("other.example",), True),
    ],
)
async def test_mta_sts(
    world: World, tmp_path: Path, mode: str, mx: str, names: tuple[str, ...], delivered: bool
) -> None:
    await world.host(1, names=names)
    (tmp_path / "https").mkdir()
    body = POLICY.format(mode=mode, mx=mx)
    async with https(tmp_path / "https", "mta-sts.sts.example", body) as (site, _), Nameserver(ZONE) as server:
        route = await world.route(server, site=site, ca_file=tmp_path / "tls-1" / "ca.pem")
        if delivered:
            assert (await route.send(message(recipient="ada@sts.example"), Marks())).code == 250
        else:
            error = await obstacle_to(route, "ada@sts.example")
            assert error.kind in (UnreachableReason.HOSTS_DOWN, UnreachableReason.POLICY)
    assert len(world.taken()[1]) == int(delivered)


async def test_a_host_without_tls_gets_nothing_from_a_domain_that_enforces_it(world: World, tmp_path: Path) -> None:
    await world.host(1, tls=False)
    (tmp_path / "https").mkdir()
    body = POLICY.format(mode="enforce", mx="mx.sts.example")
    async with https(tmp_path / "https", "mta-sts.sts.example", body) as (site, _), Nameserver(ZONE) as server:
        route = await world.route(server, site=site)
        assert (await obstacle_to(route, "ada@sts.example")).kind is UnreachableReason.HOSTS_DOWN
    assert world.taken() == {1: []}


async def test_many_at_once_ask_dns_once(world: World) -> None:
    await world.host(1)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        sends = [route.send(message(recipient=f"a{n}@address.example"), Marks()) for n in range(100)]
        replies = await asyncio.gather(*sends)
        assert {reply.code for reply in replies} == {250}
        assert set(server.asked.values()) == {1}
