"""AUTH (RFC 4954) and its mechanisms, with two independent clients and a raw one."""

from __future__ import annotations

import asyncio
import base64
import smtplib

import aiosmtplib
import pytest

from postroad.sandbox import AuthMechanism, Fault, RulePhase, Sandbox, SandboxRule
from tests.sandbox.conftest import Bench

CREDENTIALS = {"ann": "sécret"}
ASCII = {"ann": "secret"}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def login(sandbox: Sandbox, mechanism: AuthMechanism, password: str) -> None:
    with smtplib.SMTP(sandbox.host, sandbox.port) as client:
        client.user, client.password = "ann", password
        client.ehlo("client.test")
        answer = getattr(client, "auth_" + mechanism.value.lower().replace("-", "_"))
        client.auth(mechanism.value, answer)


@pytest.mark.parametrize("mechanism", list(AuthMechanism))
async def test_smtplib_logs_in_by_each_mechanism(bench: Bench, mechanism: AuthMechanism) -> None:
    sandbox = await bench.sandbox(credentials=ASCII)
    await asyncio.to_thread(login, sandbox, mechanism, "secret")
    assert sandbox.counters.authenticated == 1
    with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        await asyncio.to_thread(login, sandbox, mechanism, "wrong")
    assert caught.value.smtp_code == 535
    assert sandbox.counters.authenticated == 1
    assert sandbox.counters.refused[RulePhase.AUTH] == 1


@pytest.mark.parametrize("mechanism", list(AuthMechanism))
async def test_aiosmtplib_logs_in_by_each_mechanism(bench: Bench, mechanism: AuthMechanism) -> None:
    sandbox = await bench.sandbox(credentials=ASCII, auth_mechanisms=(mechanism,), require_auth=True)
    await aiosmtplib.send(
        "Subject: hi\r\n\r\nhello\r\n",
        sender="a@from.test",
        recipients=["b@to.test"],
        hostname=sandbox.host,
        port=sandbox.port,
        username="ann",
        password="secret",
    )
    (entry,) = sandbox.accepted()
    assert b" with ESMTPA id " in (sandbox.ledger_path.parent / str(entry.path)).read_bytes()


async def test_mail_waits_for_auth_where_it_is_required(bench: Bench) -> None:
    wire = await bench.hello(await bench.sandbox(credentials=CREDENTIALS, require_auth=True))
    assert (await wire.ask("MAIL FROM:<a@b.test>")).startswith("530 5.7.0 Authentication required")
    assert (await wire.ask("AUTH PLAIN " + encoded("\0ann\0sécret"))).startswith("235 2.7.0")
    assert (await wire.ask("MAIL FROM:<a@b.test>")).startswith("250")


@pytest.mark.parametrize(
    ("exchange", "reply"),
    [
        (["AUTH PLAIN", encoded("\0ann\0sécret")], "235 2.7.0"),
        (["AUTH PLAIN " + encoded("\0ann\0secret")], "535 5.7.8"),
        (["AUTH PLAIN " + encoded("\0nobody\0")], "535 5.7.8"),
        (["AUTH PLAIN " + encoded("ann")], "535 5.7.8"),
        (["AUTH PLAIN ="], "535 5.7.8"),
        (["AUTH LOGIN", encoded("ann"), encoded("sécret")], "235 2.7.0"),
        (["AUTH LOGIN " + encoded("ann"), encoded("sécret")], "235 2.7.0"),
        (["AUTH LOGIN", encoded("ann"), encoded("no")], "535 5.7.8"),
        (["AUTH LOGIN", "*"], "501 5.7.0"),
        (["AUTH LOGIN", "no base64!"], "501 5.5.2"),
        (["AUTH PLAIN no-base64!"], "501 5.5.2"),
        (["AUTH CRAM-MD5", encoded("ann 00112233445566778899aabbccddeeff")], "535 5.7.8"),
        (["AUTH CRAM-MD5 " + encoded("ann")], "501 5.5.4"),
        (["AUTH"], "501 5.5.4"),
        (["AUTH GSSAPI"], "504 5.5.4"),
        (["MAIL FROM:<a@b.test>", "AUTH LOGIN"], "503 5.5.1 Error: MAIL transaction"),
        (["AUTH PLAIN " + encoded("\0ann\0sécret"), "AUTH LOGIN"], "503 5.5.1 Error: already"),
    ],
)
async def test_an_exchange_ends_by_the_book(bench: Bench, exchange: list[str], reply: str) -> None:
    wire = await bench.hello(await bench.sandbox(credentials=CREDENTIALS))
    *earlier, last = exchange
    for line in earlier:
        assert (await wire.ask(line))[0] in "23"
    assert (await wire.ask(last)).startswith(reply)
    assert (await wire.ask("NOOP")).startswith("250")


async def test_a_password_that_names_a_command_is_still_a_response(bench: Bench) -> None:
    """QUIT is valid base64."""
    wire = await bench.hello(await bench.sandbox(credentials=CREDENTIALS))
    assert (await wire.ask("AUTH LOGIN")) == "334 " + encoded("Username:")
    assert (await wire.ask("QUIT")) == "334 " + encoded("Password:")
    assert (await wire.ask("QUIT")).startswith("535")


async def test_challenges_follow_the_seed(bench: Bench) -> None:
    challenges: list[str] = []
    for seed in (1, 2):
        wire = await bench.hello(await bench.sandbox(credentials=CREDENTIALS, seed=seed))
        challenges += [(await wire.ask("AUTH CRAM-MD5")), (await wire.ask("*"))]
    assert challenges[0] != challenges[2]


async def test_auth_may_fail_for_a_while_by_rule(bench: Bench) -> None:
    rule = SandboxRule(phase=RulePhase.AUTH, fault=Fault(reply="454 4.7.0 Temporary authentication failure"))
    sandbox = await bench.sandbox(credentials=CREDENTIALS, rules=(rule,))
    wire = await bench.hello(sandbox)
    command = "AUTH PLAIN " + encoded("\0ann\0sécret")
    assert (await wire.ask(command)).startswith("454 4.7.0 Temporary")
    sandbox.use([])
    assert (await wire.ask(command)).startswith("235")


async def test_guessing_passwords_ends_the_session(bench: Bench) -> None:
    wire = await bench.hello(await bench.sandbox(credentials=CREDENTIALS, max_command_errors=3))
    for _ in range(2):
        assert (await wire.ask("AUTH PLAIN " + encoded("\0ann\0guess"))).startswith("535")
    wire.send(b"AUTH PLAIN " + encoded("\0ann\0guess").encode() + b"\r\n")
    assert b"421 4.7.0 Error: too many errors\r\n" in await wire.rest()
