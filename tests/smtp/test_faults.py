"""Every fault of the sandbox at every phase: the client's result, and what the sandbox has accepted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from postroad.delivery.outcome import classify_reply, classify_transport_error
from postroad.delivery.result import DeliveryVerdict
from postroad.sandbox import ConnectionEnding, Extension, Fault, RulePhase, Sandbox, SandboxConfig, SandboxRule
from postroad.settings import TlsMode
from postroad.smtp.errors import TransportError
from postroad.smtp.pool import SessionPool
from tests.smtp.conftest import QUICK, Certificates, Marks, message, route

IMPATIENT = replace(QUICK, greeting=0.3, mail=0.3, rcpt=0.3, data=0.3, dot=0.3)
OPENING = {RulePhase.CONNECT, RulePhase.EHLO, RulePhase.STARTTLS, RulePhase.AUTH}
FAULTS = {
    "4xx": Fault(reply="451 4.3.0 Not now"),
    "5xx": Fault(reply="550 5.1.1 No such user"),
    "421": Fault(reply="421 4.7.0 Enough"),
    "4xx and close": Fault(reply="451 4.3.0 Not now", ending=ConnectionEnding.CLOSE),
    "drop": Fault(ending=ConnectionEnding.DROP),
    "reset": Fault(ending=ConnectionEnding.RESET),
    "hang": Fault(ending=ConnectionEnding.HANG),
    "trickle": Fault(byte_delay_ms=1),
    "late": Fault(delay_ms=50),
}


def expected(phase: RulePhase, fault: str) -> DeliveryVerdict:
    if phase is RulePhase.QUIT or fault in ("trickle", "late"):
        return DeliveryVerdict.ACCEPTED
    if phase in OPENING:
        return DeliveryVerdict.DEFER  # the route is down for all; no attempt is used
    match fault:
        case "4xx" | "421" | "4xx and close":
            return DeliveryVerdict.DEFER
        case "5xx":
            return DeliveryVerdict.DEAD if phase is RulePhase.MAIL else DeliveryVerdict.BOUNCED
        case _:
            return DeliveryVerdict.UNKNOWN if phase is RulePhase.DOT else DeliveryVerdict.RETRY


@pytest.mark.parametrize("pipelining", [True, False], ids=["grouped", "in turn"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("phase", RulePhase)
async def test_fault(
    phase: RulePhase, fault: str, pipelining: bool, tmp_path: Path, certificates: Certificates
) -> None:
    config = SandboxConfig(
        directory=str(tmp_path / "sandbox"),
        certificate=str(certificates.certificate),
        private_key=str(certificates.private_key),
        credentials={"ada": "pony"},
        extensions=tuple(word for word in Extension if pipelining or word is not Extension.PIPELINING),
        rules=(SandboxRule(phase=phase, fault=FAULTS[fault]),),
    )
    marks = Marks()
    async with Sandbox(config, rng=Random(7)) as sandbox:
        endpoint = route(
            sandbox.port, tls=TlsMode.STARTTLS, ca_file=certificates.ca_file, username="ada", password="pony"
        )
        # What only takes its time is waited for, on a busy machine too.
        async with SessionPool(
            endpoint, QUICK if expected(phase, fault) is DeliveryVerdict.ACCEPTED else IMPATIENT
        ) as pool:
            try:
                outcome = classify_reply(await pool.send(message(), marks), deferrals=0)
            except TransportError as error:
                outcome = classify_transport_error(error)
            assert outcome.verdict is expected(phase, fault)
            assert (outcome.pause is not None) is (phase in OPENING and outcome.verdict is DeliveryVerdict.DEFER)
            assert marks.count == int(
                phase in (RulePhase.DOT, RulePhase.QUIT) or outcome.verdict is DeliveryVerdict.ACCEPTED
            )
            if fault != "hang" or phase is not RulePhase.QUIT:
                sandbox.use([])
                assert (await pool.send(message(recipient="bob@example.org"), Marks())).code == 250
        taken = [found.recipient for found in sandbox.accepted()]
        assert taken.count("ada@example.org") == int(outcome.verdict is DeliveryVerdict.ACCEPTED)
