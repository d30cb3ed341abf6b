"""Sandboxes as mail hosts at addresses of loopback, and a name server that names them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postroad.delivery.destinations import Destinations
from postroad.delivery.direct import DirectRoute
from postroad.delivery.outcome import NoMailHostError
from postroad.delivery.sts_policies import StsPolicies
from postroad.dns.public_address import Network, networks
from postroad.dns.resolver import Resolver
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.settings import RouteKind, RouteSettings
from postroad.shaping.config import Shaping, read_shaping
from postroad.smtp.endpoint import LocalBinding
from postroad.smtp.pools import Pools
from postroad.smtp.tls import client_context
from tests.dns.nameserver import Nameserver
from tests.https import Site
from tests.kit.clock import SleepingClock
from tests.smtp.conftest import QUICK, Certificates, Marks, message

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


async def obstacle_to_reply(route: DirectRoute, address: str) -> NoMailHostError:
    """Return an obstacle that a reply caused."""
    with pytest.raises(NoMailHostError) as caught:
        await route.send(message(recipient=address), Marks())
    assert caught.value.reply is not None
    return caught.value


def shaping_of(folder: Path, text: str) -> Shaping:
    path = folder / "shaping.toml"
    path.write_text(text)
    return read_shaping(path)


async def send_to(route: DirectRoute, *addresses: str, sender: str | None = None) -> None:
    for address in addresses:
        reply = await route.send(message(recipient=address), Marks(), LocalBinding(sender=sender))
        assert reply.code == 250


def tlsa_of(folder: Path) -> str:
    certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"3 1 1 {hashlib.sha256(key).hexdigest()}"
