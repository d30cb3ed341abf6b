"""What servers say is classified by its meaning, and not by words in addresses, hosts and footers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.classify.cause import Cause, Confidence
from postroad.classify.classify import classify
from postroad.classify.evidence import Evidence, find_evidence
from postroad.classify.known import known_replies
from postroad.classify.statement import Speaker, Statement
from postroad.classify.text import clean, words_for_all
from postroad.dns.providers import provider_table
from postroad.errors import Blame
from postroad.smtp.reply import Phase, parse_reply
from tests.attacks.limits import cost_ratio

REPLIES = tomllib.loads(Path(__file__).with_name("replies.toml").read_text(encoding="utf-8"))["reply"]
TABLES = tomllib.loads((Path(__file__).parents[2] / "src/postroad/classify/evidence.toml").read_text(encoding="utf-8"))
CLASSES = TABLES.pop("classes")
PHRASES = [(kind, phrase) for kind in TABLES for phrase in TABLES[kind]["phrases"]]
SUPPRESS = "S"
FAULTS = {
    "S": {Blame.RECIPIENT},
    "R": {Blame.RECIPIENT, Blame.HOST, Blame.MESSAGE},
    "X": {Blame.SENDER, Blame.MESSAGE, Blame.US, Blame.HOST},
}


def said(text: str, *, phase: Phase | None = Phase.RCPT, provider: str = "", recipient: str = "") -> Statement:
    lines = text.split("\n")
    reply = parse_reply(phase or Phase.RCPT, int(lines[0][:3]), [line[4:] for line in lines])
    return Statement(
        text=reply.text,
        code=reply.code,
        status=reply.enhanced,
        phase=phase,
        provider=provider,
        recipient=recipient,
    )


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: row["said"][:60])
def test_a_reply_is_classified_as_labelled(row: dict[str, str]) -> None:
    found = classify(said(row["said"], provider=row.get("provider", "")))
    assert found.suppresses is (row["label"] == SUPPRESS), found
    if row["label"] in FAULTS:
        assert found.fault in FAULTS[row["label"]], found
    if row["label"] in ("D", "L"):
        assert found.temporary
    if row["label"] == "L":
        assert found.cause in (Cause.RATE, Cause.REPUTATION)


WORDS = sorted(
    {
        word.rstrip("*")
        for phrase in [*(phrase for _, phrase in PHRASES), *(word for words in CLASSES.values() for word in words)]
        for word in phrase.split()
        if word.isascii() and not word.startswith("{")
    }
    - {"...", "|"}
)
DEAD = "550 5.1.1 <{address}>: Recipient address rejected: User unknown in relay table (host {host}[192.0.2.1])"
PLAIN = "550 {address} {host} said no such user here"
FULL = "552 5.2.2 <{address}>: Mailbox full at {host}"
BLOCKED = "554 5.7.1 {host} refused <{address}>: your IP is on a blacklist"


@pytest.mark.parametrize("template", [DEAD, PLAIN, FULL, BLOCKED])
def test_no_word_in_an_address_or_a_host_changes_a_classification(template: str) -> None:
    plain = classify(said(template.format(address="ada@example.org", host="mx.example.org")))
    wrong = []
    for word in WORDS:
        for address, host in (
            (f"{word}@example.org", "mx.example.org"),
            (f"ada@{word}.example.org", "mx.example.org"),
            (f"ada@{word}.com", "mx.example.org"),
            ("ada@example.org", f"{word}.example.org"),
            ("ada@example.org", f"mx-{word}.example.org"),
        ):
            found = classify(said(template.format(address=address, host=host), recipient=address))
            if (found.cause, found.suppresses) != (plain.cause, plain.suppresses):
                wrong.append((address, host, found))
    assert wrong == []


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("text", ["450 5.1.1 User unknown", "421 4.1.1 No such user", "451 4.2.2 mailbox full"])
def test_a_temporary_reply_never_suppresses(phase: Phase, text: str) -> None:
    assert not classify(said(text, phase=phase)).suppresses


def test_what_answers_mail_never_means_the_recipient() -> None:
    found = classify(said("550 5.1.1 User unknown", phase=Phase.MAIL))
    assert (found.suppresses, found.fault) == (False, Blame.SENDER)


def test_words_after_the_message_need_a_code_that_says_the_same() -> None:
    assert not classify(said("550 User unknown", phase=Phase.DOT)).suppresses
    assert classify(said("550 5.1.1 User unknown", phase=Phase.DOT)).suppresses


def test_a_report_without_a_dialogue_counts() -> None:
    assert classify(said("550 User unknown", phase=None)).suppresses


def test_a_negation_is_respected() -> None:
    assert Evidence.REPUTATION not in {one.evidence for one in find_evidence(clean("not listed in the directory"))}
    assert classify(said("550 5.1.1 ada is not listed in the directory")).suppresses


@pytest.mark.parametrize(
    "text",
    [
        "554 Message rejected: Email address is not verified. The following identities failed the check: a@example.com",
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; the sender's quota was exceeded.",
        "454 4.7.0 Throttling failure: Daily message quota exceeded.",
        "550 5.4.5 Daily SMTP relay limit exceeded for user.",
        "550 Maximum credits exceeded",
        "554 5.7.1 Relay access denied",
    ],
)
def test_a_relay_that_refuses_our_account_is_no_fault_of_a_recipient(text: str) -> None:
    reply = said(text, phase=Phase.DOT)
    found = classify(
        Statement(text=reply.text, code=reply.code, status=reply.status, phase=Phase.DOT, speaker=Speaker.RELAY)
    )
    assert found.cause in (Cause.RELAY_ACCOUNT, Cause.RELAYING)
    assert not found.suppresses


def test_exim_says_of_which_address_the_verification_failed() -> None:
    text = "550-Verification failed for <ada@example.org>\n550 No such person at this address"
    assert classify(said(text, recipient="ada@example.org")).suppresses
    assert not classify(said(text, recipient="bob@example.org")).suppresses


@pytest.mark.parametrize(
    "text", ["550 5.1.1", "550 5.1.1 Recipient rejected", "550 5.1.1 Ilyen postafiók nincs nálunk"]
)
def test_a_code_alone_counts_where_the_words_say_nothing_else(text: str) -> None:
    found = classify(said(text))
    assert (found.suppresses, found.confidence) == (True, Confidence.LOW)


def test_no_part_of_a_url_is_left_as_words() -> None:
    assert clean("No user, see https://a.example/spam?quota for details. Bye") == "no user see | for details | bye"


def test_every_documented_reply_names_its_source() -> None:
    assert all(reply.source for reply in known_replies())
    assert len({reply.name for reply in known_replies()}) == len(known_replies())


def test_phrases_are_in_the_form_of_cleaned_text() -> None:
    for kind, phrase in PHRASES:
        assert Evidence(kind)
        if not phrase.isascii() and " " not in phrase:
            continue  # Cleaned as a text is, when the table is read.
        bare = re.sub(r"\{\w+\}", "", phrase).replace("*", "").replace("...", " ")
        assert clean(bare) == " ".join(bare.casefold().split()), phrase


OTHER_THINGS = [
    *("sender", "sending domain", "your mail server", "reverse DNS entry", "PTR record", "SPF record", "DKIM key"),
    *("HELO name", "hostname", "DNS name", "client host", "certificate", "command", "Reply-To address", "IP address"),
    *("originating host", "network", "file", "table", "URL", "login", "source address", "author domain", "encoding"),
]
MISSING = ["does not exist", "not found", "is unknown", "is invalid", "could not be found", "no longer exists"]


@pytest.mark.parametrize("status", [None, "5.7.1"])
@pytest.mark.parametrize("thing", OTHER_THINGS)
def test_another_thing_that_is_missing_is_no_recipient(thing: str, status: str | None) -> None:
    texts = [f"{begin}{thing} {missing}" for begin in ("", "The ", "Rejected: ") for missing in MISSING]
    wrong = [text for text in texts if classify(Statement(text=text, code=550, status=status)).suppresses]
    assert wrong == []


@given(st.text(max_size=300), st.integers(400, 599), st.sampled_from([None, *Phase]))
def test_any_text_is_classified(text: str, code: int, phase: Phase | None) -> None:
    found = classify(Statement(text=text, code=code, phase=phase))
    assert found.rule
    assert found.reason


@pytest.mark.parametrize(
    "piece", ["<", "@", "a@", "a.", "[", '"', "5.1.", "no ", "user ", "exceed ", ">>> ", "check ", "::"]
)
def test_cleaning_and_matching_are_linear(piece: str) -> None:
    def judge(text: str) -> None:
        classify(Statement(text=text, code=550))

    ratio = cost_ratio(judge, piece * (500 // len(piece)), piece * (2_000 // len(piece)), repeats=5)
    assert ratio < 16


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 User unknown",
        "550 No such user here",
        "550-5.1.1 The email account that you tried to reach does not exist. https://support.google.com/mail/?p=NoSuchUser",
        "552 5.2.2 Mailbox full",
        "550 Mailbox is over quota",
        "550 5.2.1 The mailbox is disabled",
        "550 5.7.1 RESOLVER.RST.NotAuthorized; not authorized",
    ],
)
def test_clear_words_mean_the_recipient_however_many_get_them(text: str) -> None:
    assert not classify(said(text)).doubtful


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 Rejected",
        "550 5.1.1 <ada@example.org>",
        "550 Requested action not taken",
        "550 5.2.1 Refused",
        "550 Rejected by the recipient",
        "550 The account is locked",
    ],
)
def test_a_code_alone_or_a_wish_may_mean_the_sender(text: str) -> None:
    assert classify(said(text)).doubtful


def test_the_words_for_all_recipients_leave_out_what_differs() -> None:
    texts = [
        ("<ada@example.org>: rejected, ada, id x12si345 (mx1.example.org) 1482519786", "ada@example.org"),
        (
            "<bob.s@example.net>: rejected, bob.s, id a9si77 (mx2.example.net) 1482519999",
            "bob.s@example.net",
        ),
    ]
    first, second = (words_for_all(text, recipient) for text, recipient in texts)
    assert first == second
    assert words_for_all("rejected by policy", "ada@example.org") != first
    assert words_for_all("550", "ada@example.org", "5.1.1") == "5.1.1"


def test_a_documented_reply_is_that_of_its_provider() -> None:
    text = "550 Requested action not taken: mailbox unavailable"
    by_its_own, by_unknown, by_another = (classify(said(text, provider=name)) for name in ("gmx", "", "yahoo"))
    assert (by_its_own.suppresses, by_its_own.doubtful) == (True, False)
    assert (by_unknown.suppresses, by_unknown.doubtful) == (True, True)
    assert (by_another.suppresses, by_another.doubtful) == (False, True)


def test_providers_of_documented_replies_are_known() -> None:
    assert {name for reply in known_replies() for name in reply.providers} <= provider_table().names


@pytest.mark.parametrize(
    ("text", "suppresses"),
    [
        ("550 le serveur n'existe pas", False),
        ("550 il server non esiste", False),
        ("550 el servidor no existe", False),
        ("550 servern finns inte", False),
        ("550 5.1.1 ARC seal unknown", False),
        ("550 l'utilisateur n'existe pas sur le serveur", True),
        ("550 el usuario no existe en el servidor", True),
        ("553 5.1.3 <ada@example.org>... Invalid host name", True),
    ],
)
def test_a_server_that_does_not_exist_is_no_recipient(text: str, suppresses: bool) -> None:
    assert classify(said(text)).suppresses is suppresses
