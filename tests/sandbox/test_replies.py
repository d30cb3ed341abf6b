from __future__ import annotations

import re

import pytest

from postroad.sandbox import RulePhase, provider_replies
from postroad.sandbox.phrases import OrdinaryReply
from postroad.sandbox.replies import SandboxReply, parse_reply

FIELDS = {"ip", "hostname", "id", "recipient", "local_part", "domain", "sender", "sender_domain"}


@pytest.mark.parametrize("name", provider_replies())
def test_a_providers_reply_is_well_formed_and_documented(name: str) -> None:
    entry = provider_replies()[name]
    assert entry.code // 100 in (4, 5)
    assert re.fullmatch(r"|[45]\.\d{1,3}\.\d{1,3}", entry.enhanced)
    if entry.enhanced:
        assert entry.enhanced[0] == str(entry.code)[0]
    assert entry.phase in list(RulePhase)
    assert entry.lines
    assert entry.source.startswith("https://")
    assert set(re.findall(r"\{(\w+)\}", "".join(entry.lines))) <= FIELDS
    for line in entry.reply.encode(fields=dict.fromkeys(FIELDS, "x" * 40)).split(b"\r\n"):
        assert len(line) + 2 <= 512  # RFC 5321 §4.5.3.1.5


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("550 5.1.1 No such user", SandboxReply(550, "5.1.1", ("No such user",))),
        ("550-5.1.1 No such user", SandboxReply(550, "5.1.1", ("No such user",))),
        ("451", SandboxReply(451, "", ("Requested action aborted: local error in processing",))),
        ("499", SandboxReply(499, "", ("Refused on request",))),
        ("250 ok dirdel", SandboxReply(250, "", ("ok dirdel",))),
        ("421 4.7.0 two\nlines", SandboxReply(421, "4.7.0", ("two", "lines"))),
    ],
)
def test_a_reply_may_be_spelled_out(text: str, reply: SandboxReply) -> None:
    assert parse_reply(text) == reply


@pytest.mark.parametrize("text", ["", "hello", "350 go on", "5501 x", "550\r\n250 ok", "gmail-unknown"])
def test_what_is_no_reply_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a reply"):
        parse_reply(text)


def test_the_enhanced_code_is_on_every_line_or_on_none() -> None:
    """RFC 2034 §4."""
    reply = SandboxReply(450, "4.2.1", ("for {recipient}", "and {unknown}"))
    assert reply.encode(fields={"recipient": "a@b"}) == b"450-4.2.1 for a@b\r\n450 4.2.1 and {unknown}\r\n"
    assert reply.encode(enhanced=False) == b"450-for {recipient}\r\n450 and {unknown}\r\n"


@pytest.mark.parametrize("phrase", OrdinaryReply)
def test_an_ordinary_reply_agrees_with_its_enhanced_code(phrase: OrdinaryReply) -> None:
    reply = phrase.value
    assert (reply.enhanced or "3")[0] == str(reply.code)[0]
