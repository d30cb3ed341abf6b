"""STARTTLS (RFC 3207) and implicit TLS (RFC 8314)."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroad.errors import ConfigError
from postroad.sandbox import Fault, RulePhase, Sandbox, SandboxConfig, SandboxRule
from tests.kit.waiting import until
from tests.sandbox.client import Wire
from tests.sandbox.conftest import Bench


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_starttls_secures_the_session_and_forgets_what_was_said(
    bench: Bench, certificate: dict[str, Any], trust: ssl.SSLContext
) -> None:
    sandbox = await bench.sandbox(**certificate)
    wire = await bench.wire(sandbox)
    assert "250 STARTTLS" in (await wire.greeted())
    assert (await wire.ask("MAIL FROM:<a@b.test>")).startswith("250")
    assert (await wire.ask("STARTTLS")).startswith("220 2.0.0")
    await wire.writer.start_tls(trust, server_hostname="localhost")
    assert (await wire.ask("RCPT TO:<a@b.test>")).startswith("503")
    assert (await wire.ask("MAIL FROM:<a@b.test>")).startswith("503 5.5.1 Error: send HELO")
    assert "STARTTLS" not in (await wire.ask("EHLO again.test"))
    assert (await wire.ask("STARTTLS")).startswith("503 5.5.1 Error: TLS already")
    assert (await wire.deliver()).startswith("250")
    assert sandbox.counters.secured == 1
    (entry,) = sandbox.accepted()
    assert b" with ESMTPS id " in (sandbox.ledger_path.parent / str(entry.path)).read_bytes()


async def test_what_is_slipped_in_before_tls_is_thrown_away(
    bench: Bench, certificate: dict[str, Any], trust: ssl.SSLContext
) -> None:
    """RFC 3207 §4.2, CVE-2011-0411: a man in the middle cannot inject commands."""
    sandbox = await bench.sandbox(**certificate)
    wire = await bench.hello(sandbox)
    wire.send(b"STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@from.test>\r\nRCPT TO:<v@to.test>\r\nRSET")
    assert (await wire.reply()).startswith("220")
    await wire.writer.start_tls(trust, server_hostname="localhost")
    # The first reply inside TLS belongs to the first command inside TLS, and EHLO was not processed.
    assert (await wire.ask("NOOP")) == "250 2.0.0 Ok"
    assert (await wire.ask("MAIL FROM:<a@b.test>")).startswith("503 5.5.1 Error: send HELO")


async def test_implicit_tls_speaks_tls_from_the_first_octet(
    bench: Bench, certificate: dict[str, Any], trust: ssl.SSLContext
) -> None:
    sandbox = await bench.sandbox(tls_port=0, **certificate)
    assert sandbox.tls_port not in (None, sandbox.port)

    def send() -> None:
        with smtplib.SMTP_SSL("localhost", sandbox.tls_port or 0, context=trust) as client:
            client.sendmail("a@from.test", ["b@to.test"], "Subject: hi\r\n\r\nhello\r\n")

    await asyncio.to_thread(send)
    assert len(sandbox.accepted()) == 1
    assert sandbox.counters.secured == 1


async def test_require_tls_holds_mail_and_auth_back(bench: Bench, certificate: dict[str, Any]) -> None:
    wire = await bench.hello(await bench.sandbox(require_tls=True, credentials={"u": "p"}, **certificate))
    assert (await wire.ask("AUTH LOGIN")).startswith("530 5.7.0 Must issue a STARTTLS")
    assert (await wire.ask("MAIL FROM:<a@b.test>")).startswith("530 5.7.0 Must issue a STARTTLS")


async def test_starttls_takes_no_parameter_and_may_be_refused_by_rule(
    bench: Bench, certificate: dict[str, Any]
) -> None:
    fault = Fault(reply="454 4.7.0 TLS not available due to local problem")
    sandbox = await bench.sandbox(rules=(SandboxRule(phase=RulePhase.STARTTLS, fault=fault),), **certificate)
    wire = await bench.hello(sandbox)
    assert (await wire.ask("STARTTLS now")).startswith("501 5.5.4")
    assert (await wire.ask("STARTTLS")).startswith("454 4.7.0 TLS not available due")
    assert (await wire.deliver()).startswith("250")


async def test_a_client_that_speaks_no_tls_after_starttls_is_let_go(bench: Bench, certificate: dict[str, Any]) -> None:
    sandbox = await bench.sandbox(tls_port=0, **certificate)
    wire = await bench.hello(sandbox)
    assert (await wire.ask("STARTTLS")).startswith("220")
    wire.send(b"EHLO in.clear\r\n")
    await wire.rest()
    async with Wire("127.0.0.1", sandbox.tls_port or 0) as plain:
        plain.send(b"EHLO in.clear\r\n")
        await plain.rest()
    await until(lambda: sandbox.counters.open_connections == 0)
    assert sandbox.counters.secured == 0


async def test_a_drop_inside_tls_comes_without_a_reply(
    bench: Bench, certificate: dict[str, Any], trust: ssl.SSLContext
) -> None:
    sandbox = await bench.sandbox(tls_port=0, **certificate)
    async with Wire("localhost", sandbox.tls_port or 0, trust) as wire:
        assert (await wire.greeted()).startswith("250")
        assert (await wire.envelope(recipient="b+drop-after-dot-kept@to.test")).startswith("250")
        assert (await wire.ask("DATA")).startswith("354")
        wire.send(b"x\r\n.\r\n")
        assert await wire.rest() == b""
    assert len(sandbox.accepted()) == 1


async def test_a_client_that_ignores_the_end_of_tls_is_dropped(
    tmp_path: Path, certificate: dict[str, Any], trust: ssl.SSLContext
) -> None:
    config = SandboxConfig(directory=str(tmp_path / "in"), tls_port=0, **certificate)
    loop = asyncio.get_running_loop()
    async with Sandbox(config) as sandbox:
        plain = socket.create_connection(("127.0.0.1", sandbox.tls_port or 0))
        deaf = await asyncio.to_thread(trust.wrap_socket, plain, server_hostname="localhost")
        await until(lambda: sandbox.counters.open_connections == 1)
        began_s = loop.time()
    assert loop.time() - began_s < 5
    assert sandbox.counters.open_connections == 0
    deaf.close()


async def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    config = SandboxConfig(directory=str(tmp_path), certificate=str(nonsense), private_key=str(nonsense))
    with pytest.raises(ConfigError, match=r"nonsense\.pem: The certificate cannot be used"):
        await Sandbox(config).__aenter__()
