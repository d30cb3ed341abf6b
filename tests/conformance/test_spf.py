"""The RFC 7208 test suite: each test with a name server that has the zone of its scenario."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
import yaml
from dns.name import from_text

from postroad.clock import SystemClock
from postroad.dns.resolver import Resolver
from postroad.dns.spf import SpfInput, check_host
from tests.conformance.corpora import REASON, corpus, not_here
from tests.dns.nameserver import Nameserver, Trouble

TESTS = 203
TIMEOUT_MS = 500
"""Timeout for zones with unanswered names. The others get more time, for a busy machine."""


def _scenarios() -> list[dict[str, Any]]:
    folder = corpus("spf-rfc7208")
    if folder is None:
        return []
    return list(yaml.safe_load_all((folder / "test/rfc7208-tests.yml").read_text(encoding="utf-8")))


def _cases() -> list[Any]:
    cases = [
        pytest.param(scenario["zonedata"], test, id=f"{scenario['description']}-{name}".replace(" ", "-"))
        for scenario in _scenarios()
        for name, test in scenario["tests"].items()
    ]
    return cases or not_here({}, {})


def _zone(data: dict[str, list[Any]]) -> tuple[dict[str, dict[str, list[str]]], dict[str, Trouble]]:
    """Convert zone data of the suite: a record of type SPF also counts as TXT, unless there is a TXT record."""
    zone: dict[str, dict[str, list[str]]] = {}
    troubles: dict[str, Trouble] = {}
    for suite_name, records in data.items():
        name = from_text(suite_name).to_text(omit_final_dot=True).lower()
        has_txt = any("TXT" in record for record in records if isinstance(record, dict))
        kinds: dict[str, list[str]] = {}
        for record in records:
            for kind, value in record.items() if isinstance(record, dict) else ():
                if kind == "SPF" and has_txt:
                    continue
                text = _text("TXT" if kind == "SPF" else kind, value)
                if text is not None:
                    kinds.setdefault("TXT" if kind == "SPF" else kind, []).append(text)
        if "TIMEOUT" in records and "TXT" not in kinds:  # It is silent on what it does not have.
            troubles[name] = Trouble.SILENT
        zone[name] = kinds
    return zone, troubles


def _text(kind: str, value: Any) -> str | None:
    match kind:
        case "TXT" if value == "NONE":
            return None
        case "TXT":
            return " ".join(_quoted(part) for part in (value or [""] if isinstance(value, list) else [value]))
        case "MX":
            return f"{value[0]} {_name(value[1])}"
        case "PTR" | "CNAME":
            return _name(value)
        case _:
            return str(value)


def _name(value: str) -> str:
    return value if value.endswith(".") else f"{value}."


def _quoted(text: str) -> str:
    octets = text.encode("latin-1", "replace") if all(ord(c) < 256 for c in text) else text.encode()
    return '"' + "".join(chr(o) if 32 <= o < 127 and o not in b'"\\' else f"\\{o:03d}" for o in octets) + '"'


@pytest.mark.parametrize(("data", "test"), _cases())
async def test_a_host_is_judged_as_the_suite_does(data: dict[str, list[Any]], test: dict[str, Any]) -> None:
    zone, troubles = _zone(data)
    sender = test["mailfrom"] or f"postmaster@{test['helo']}"
    async with (
        Nameserver(zone, troubles=troubles) as server,
        Resolver(server.settings(timeout_ms=TIMEOUT_MS if troubles else 10_000), SystemClock()) as resolver,
    ):
        mail = SpfInput(ip=ip_address(test["host"]), sender=sender, helo=test["helo"])
        outcome = await check_host(resolver, mail, sender.rpartition("@")[2])
    accepted = test["result"] if isinstance(test["result"], list) else [test["result"]]
    assert outcome.result in accepted, outcome
    if outcome.result == "fail" and "explanation" in test:
        assert (outcome.explanation or "DEFAULT") == test["explanation"]


def test_the_suite_is_all_there() -> None:
    if corpus("spf-rfc7208") is None:
        pytest.skip(REASON)
    assert sum(len(scenario["tests"]) for scenario in _scenarios()) == TESTS
