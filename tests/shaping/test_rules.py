"""Which reply matches which rule, from replies of receivers that are public."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from postroad.delivery.outcome import route_down
from postroad.shaping.config import read_shaping
from postroad.shaping.rules import rule_for
from postroad.smtp.reply import Phase, Reply, parse_reply

SHAPING = read_shaping(None)
REPLIES: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("replies.toml").read_text())["reply"]


def reply_of(text: str) -> Reply:
    return parse_reply(Phase.MAIL, int(text[:3]), [text[4:]])


@pytest.mark.parametrize("row", REPLIES, ids=[row["said"][:50] for row in REPLIES])
def test_public_replies_match_their_rule(row: dict[str, Any]) -> None:
    assert row["source"]
    reply = reply_of(row["said"])
    found = rule_for(SHAPING.rule.items(), row["provider"], reply)
    assert (found[0] if found else None) == row.get("rule")
    assert SHAPING.pace.matches(reply) is row["pace"]


def test_every_shipped_rule_matches_a_public_reply() -> None:
    assert {row.get("rule") for row in REPLIES} - {None} == set(SHAPING.rule)


@pytest.mark.parametrize("row", REPLIES, ids=[row["said"][:50] for row in REPLIES])
def test_no_rule_matches_a_reply_that_no_server_sent(row: dict[str, Any]) -> None:
    reply = reply_of(row["said"])
    ours = Reply(reply.phase, reply.code, reply.enhanced, reply.text, ours=True)
    for provider in {row["provider"], *SHAPING.provider}:
        assert rule_for(SHAPING.rule.items(), provider, ours) is None
    assert not SHAPING.pace.matches(ours)


@pytest.mark.parametrize("provider", ["other", *SHAPING.provider])
def test_no_rule_matches_the_text_of_our_own_outcomes(provider: str) -> None:
    for cause in ("deferred by the host", "connection lost at mail", route_down("timed out").cause, "campaign paused"):
        reply = Reply(Phase.CONNECT, 421, None, cause)
        assert rule_for(SHAPING.rule.items(), provider, reply) is None


def test_an_acceptance_matches_no_rule() -> None:
    assert rule_for(SHAPING.rule.items(), "google", Reply(Phase.DOT, 250, "2.0.0", "OK, server busy though")) is None
