"""Source address, EHLO name, client certificates, opportunistic TLS and DANE."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postroad.settings import TlsMode
from postroad.smtp.dane import DANE_EE, DANE_TA, TlsaAssociation
from postroad.smtp.endpoint import LocalBinding
from postroad.smtp.errors import TransportError
from postroad.smtp.pools import Pools
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession
from tests.smtp.conftest import QUICK, Certificates, message, nothing, route
from tests.smtp.scripted import EXTENSIONS, Act, ScriptedServer


async def test_a_session_leaves_from_its_source_address_under_its_name() -> None:
    async with ScriptedServer() as server:
        origin = LocalBinding(source_address="127.0.0.7", helo="mail.sender.example")
        session = await SmtpSession.open(route(server.port).sent_from(origin), QUICK)
        assert (await session.send(message(), nothing)).code == 250
        assert server.connections[0].writer.get_extra_info("peername")[0] == "127.0.0.7"
        assert server.commands[0] == b"EHLO mail.sender.example\r\n"
        await session.close()


@pytest.mark.parametrize("source", ["203.0.113.9", "::1"])
async def test_unusable_source_address_is_a_transport_error(source: str) -> None:
    async with ScriptedServer() as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port).sent_from(LocalBinding(source_address=source)), QUICK)
        assert caught.value.phase is Phase.CONNECT
        assert not server.connections


async def test_the_next_address_of_a_host_is_tried() -> None:
    async with ScriptedServer() as server:
        endpoint = replace(route(server.port, host="mx.example.test"), addresses=("127.0.0.9", "127.0.0.1"))
        session = await SmtpSession.open(endpoint, QUICK)
        await session.close()


async def test_each_origin_has_a_pool_of_its_own_and_idle_ones_go() -> None:
    async with ScriptedServer() as server, Pools(QUICK, idle_seconds=0) as pools:
        for last in (1, 2, 3, 1, 2, 3):
            endpoint = route(server.port).sent_from(LocalBinding(source_address=f"127.0.0.{last}"))
            assert (await pools.of(endpoint).send(message(), nothing)).code == 250
        assert {c.writer.get_extra_info("peername")[0] for c in server.connections} == {
            "127.0.0.1",
            "127.0.0.2",
            "127.0.0.3",
        }
        assert len(pools) <= 3
        for connection in server.connections[:4]:
            await connection.gone.wait()


@pytest.mark.parametrize("tls", [TlsMode.OPPORTUNISTIC])
async def test_opportunistic_tls_accepts_any_certificate_or_no_tls(tls: TlsMode, certificates: Certificates) -> None:
    async with ScriptedServer(starttls=certificates.server_context()) as server:
        session = await SmtpSession.open(route(server.port, tls=tls), QUICK)
        assert server.connections[0].writer.get_extra_info("ssl_object") is not None
        await session.close()
    async with ScriptedServer() as server:
        session = await SmtpSession.open(route(server.port, tls=tls), QUICK)
        assert (await session.send(message(), nothing)).code == 250
        await session.close()


@pytest.mark.parametrize("answer", ["454 4.7.0 TLS is not to be had", Act.DROP])
async def test_failed_opportunistic_tls_falls_back_to_clear_text(answer: str | Act) -> None:
    async with ScriptedServer({"STARTTLS": answer}, extensions=(*EXTENSIONS, "STARTTLS")) as server:
        session = await SmtpSession.open(route(server.port, tls=TlsMode.OPPORTUNISTIC), QUICK)
        assert (await session.send(message(), nothing)).code == 250
        assert len(server.connections) == 2
        await session.close()


async def test_a_server_that_knows_helo_only() -> None:
    async with ScriptedServer({"EHLO": "502 5.5.1 what?"}) as server:
        session = await SmtpSession.open(route(server.port), QUICK)
        assert not session.pipelining
        assert (await session.send(message(), nothing)).code == 250
        await session.close()


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    clients.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ours = clients.issue_cert("mail.sender.example")
    ca_file, certificate, key = tmp_path / "ca.pem", tmp_path / "us.pem", tmp_path / "us.key"
    authority.cert_pem.write_to_path(ca_file)
    ours.cert_chain_pems[0].write_to_path(certificate)
    ours.private_key_pem.write_to_path(key)
    async with ScriptedServer(starttls=context) as server:
        bare = route(server.port, tls=TlsMode.STARTTLS, ca_file=ca_file)
        shown = replace(bare, client_certificate=certificate, client_key=key)
        session = await SmtpSession.open(shown, QUICK)
        assert (await session.send(message(), nothing)).code == 250
        await session.close()
        with pytest.raises(TransportError):
            await SmtpSession.open(bare, QUICK)
        with pytest.raises(TransportError):
            await SmtpSession.open(replace(bare, client_certificate=tmp_path / "missing.pem"), QUICK)


class Signed:
    """A server certificate of an untrusted authority, for TLSA records of either."""

    def __init__(self, name: str = "mx.example.test", *, expired: bool = False) -> None:
        self.authority = trustme.CA()
        past = datetime.now(UTC) - timedelta(days=1)
        leaf = self.authority.issue_cert(name, not_after=past) if expired else self.authority.issue_cert(name)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(self.context)
        # RFC 7672 §3.1.2: a server that publishes a trust anchor must send it.
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems) + self.authority.cert_pem.bytes()
        with (
            trustme.Blob(chain).tempfile() as chain_file,
            leaf.private_key_pem.tempfile() as key_file,
        ):
            self.context.load_cert_chain(chain_file, key_file)
        self.leaf = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        self.anchor = x509.load_pem_x509_certificate(self.authority.cert_pem.bytes())


def tlsa(usage: int, certificate: x509.Certificate, *, selector: int = 1, matching: int = 1) -> TlsaAssociation:
    part = certificate.public_bytes(Encoding.DER)
    if selector == 1:
        part = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    data = {0: part, 1: hashlib.sha256(part).digest(), 2: hashlib.sha512(part).digest()}[matching]
    return TlsaAssociation(usage, selector, matching, data)


async def opens(signed: Signed, *records: TlsaAssociation, host: str = "mx.example.test") -> bool:
    async with ScriptedServer(starttls=signed.context) as server:
        endpoint = replace(
            route(server.port, tls=TlsMode.STARTTLS, host=host), addresses=("127.0.0.1",), tlsa=tuple(records)
        )
        try:
            session = await SmtpSession.open(endpoint, QUICK)
        except TransportError as error:
            return not (error.phase is Phase.TLS and "TLSA" in error.reason)
        await session.close()
        return True


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("usage", [DANE_EE, DANE_TA])
async def test_a_certificate_that_dns_vouches_for_needs_no_authority(usage: int, selector: int, matching: int) -> None:
    signed = Signed()
    named = signed.leaf if usage == DANE_EE else signed.anchor
    wrong = tlsa(DANE_EE, Signed().leaf)
    assert await opens(signed, wrong, tlsa(usage, named, selector=selector, matching=matching))


async def test_a_certificate_that_dns_does_not_name_is_refused() -> None:
    signed, other = Signed(), Signed()
    assert not await opens(signed, tlsa(DANE_EE, other.leaf), tlsa(DANE_TA, other.anchor))
    assert not await opens(signed, tlsa(DANE_EE, signed.anchor))
    assert not await opens(signed, tlsa(0, signed.anchor), tlsa(1, signed.leaf))  # RFC 7672 §3.1.3: unusable


@pytest.mark.parametrize(("matching", "size"), [(0, 1), (1, 32), (2, 64)])
def test_a_digest_of_another_length_is_no_digest(matching: int, size: int) -> None:
    """RFC 6698 §4.1: a malformed record is unusable, which is not a reason to reject every certificate."""
    assert TlsaAssociation(DANE_EE, 1, matching, bytes(size)).usable
    assert not TlsaAssociation(DANE_EE, 1, matching, bytes(size + 1)).usable or matching == 0


async def test_name_and_dates_count_for_dane_ta_and_not_for_dane_ee() -> None:
    """RFC 7672 §3.1.1 and §3.1.2."""
    for signed in (Signed("other.test"), Signed(expired=True)):
        assert await opens(signed, tlsa(DANE_EE, signed.leaf))
        assert not await opens(signed, tlsa(DANE_TA, signed.anchor))


async def test_a_leaf_certificate_cannot_sign_another() -> None:
    """The owner of a leaf certificate under the anchor must not be able to issue one for another name."""
    signed = Signed("honest.test")
    own = signed.authority.issue_cert("evil.test")
    forged = trustme.CA.from_pem(own.cert_chain_pems[0].bytes(), own.private_key_pem.bytes()).issue_cert(
        "mx.example.test"
    )
    chain = [forged.cert_chain_pems[0], own.cert_chain_pems[0], signed.authority.cert_pem]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with (
        trustme.Blob(b"".join(blob.bytes() for blob in chain)).tempfile() as chain_file,
        forged.private_key_pem.tempfile() as key_file,
    ):
        context.load_cert_chain(chain_file, key_file)
    signed.context = context
    assert not await opens(signed, tlsa(DANE_TA, signed.anchor))
