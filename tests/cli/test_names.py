"""A name that does not exist is refused by every command that takes one, with names like it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import chdir
from uuid import uuid4

import pytest

from postroad.app.context import open_context
from postroad.queue import Job, JobClass, Lane
from postroad.settings import Settings
from tests.cli.enumerate import commands
from tests.cli.site import Site, a_site

NOT_FOUND = 7

TYPOS = {
    ("worker", "queue"): ["worker", "email:sent"],
    ("worker", "named"): ["worker", "--queue", "email:sent"],
    ("campaign launch", "name"): ["campaign", "launch", "sprong", "--dry-run"],
    ("campaign preview", "name"): ["campaign", "preview", "sprong"],
    ("campaign preview", "step"): ["campaign", "preview", "spring", "--step", "helo"],
    ("campaign preview", "recipient"): ["campaign", "preview", "spring", "--recipient", "rob@example.org"],
    ("campaign preview", "variant"): ["campaign", "preview", "spring", "--variant", "plian"],
    ("campaign proof", "variant"): ["campaign", "proof", "spring", "--to", "me@example.org", "--variant", "plian"],
    ("campaign variants", "name"): ["campaign", "variants", "sprong"],
    ("campaign proof", "name"): ["campaign", "proof", "sprong", "--to", "me@example.org"],
    ("campaign proof", "step"): ["campaign", "proof", "spring", "--to", "me@example.org", "--step", "helo"],
    ("campaign proof", "as_address"): [
        *("campaign", "proof", "spring", "--to", "me@example.org", "--as", "rob@example.org"),
    ],
    ("campaign approve", "name"): ["campaign", "approve", "sprong", "--by", "ada"],
    ("campaign refuse", "name"): ["campaign", "refuse", "sprong", "--by", "ada"],
    ("campaign approvals", "name"): ["campaign", "approvals", "sprong"],
    ("campaign forecast", "name"): ["campaign", "forecast", "sprong"],
    ("campaign forecast", "what_if"): ["campaign", "forecast", "spring", "--what-if", "sender.nws.rate=1/1s"],
    ("campaign status", "name"): ["campaign", "status", "sprong"],
    ("campaign pause", "name"): ["campaign", "pause", "sprong"],
    ("campaign resume", "name"): ["campaign", "resume", "sprong"],
    ("campaign recall", "name"): ["campaign", "recall", "sprong", "--yes"],
    ("campaign recall", "step"): ["campaign", "recall", "spring", "--step", "helo", "--yes"],
    ("campaign widen", "name"): ["campaign", "widen", "sprong", "--yes"],
    ("campaign close", "name"): ["campaign", "close", "sprong"],
    ("campaign cancel", "name"): ["campaign", "cancel", "sprong", "--yes"],
    ("audience abandon", "name"): ["audience", "abandon", "poeple"],
    ("audience refusals", "name"): ["audience", "refusals", "poeple"],
    ("permission record", "audience"): [
        *("permission", "record", "bob@example.org", "poeple", "--from", "https://example.org/form"),
    ],
    ("permission prove", "address"): ["permission", "prove", "rob@example.org"],
    ("segment count", "audience"): ["segment", "count", "--audience", "poeple"],
    ("segment count", "campaign"): ["segment", "count", "--campaign", "sprong"],
    ("segment show", "audience"): ["segment", "show", "--audience", "poeple"],
    ("segment show", "campaign"): ["segment", "show", "--campaign", "sprong"],
    ("segment explain", "address"): ["segment", "explain", "rob@example.org", "--campaign", "spring"],
    ("segment explain", "audience"): ["segment", "explain", "bob@example.org", "--audience", "poeple"],
    ("segment explain", "campaign"): ["segment", "explain", "bob@example.org", "--campaign", "sprong"],
    ("event record", "address"): ["event", "record", "rob@example.org", "paid"],
    ("event list", "address"): ["event", "list", "rob@example.org"],
    ("suppression add", "audience"): ["suppression", "add", "x@example.org", "--audience", "poeple"],
    ("suppression import", "audience"): ["suppression", "import", "people.csv", "--audience", "poeple"],
    ("suppression lift", "audience"): [
        *("suppression", "lift", "x@example.org", "--reason", "asked", "--audience", "poeple"),
    ],
    ("suppression lift", "addresses"): ["suppression", "lift", "x@example.org", "--reason", "asked"],
    ("unknown list", "queue"): ["unknown", "list", "--queue", "email:sent"],
    ("unknown resolve", "job"): ["unknown", "resolve", "4711", "--as", "dead"],
    ("unknown resolve", "queue"): ["unknown", "resolve", "1", "--as", "dead", "--queue", "email:sent"],
    ("shaping show", "sender"): ["shaping", "show", "--sender", "adda"],
    ("shaping log", "sender"): ["shaping", "log", "--sender", "adda"],
    ("bounce poll", "names"): ["bounce", "poll", "bos"],
    ("bounce watch", "names"): ["bounce", "watch", "bos"],
    ("bounce classify", "provider"): ["bounce", "classify", "550 5.1.1 no", "--provider", "gogle"],
    ("cohort status", "campaign"): ["cohort", "status", "sprong"],
    ("cohort resume", "pause"): ["cohort", "resume", "4711", "--reason", "clean"],
    ("warmup plan", "sender"): ["warmup", "plan", "--sender", "adda"],
    ("warmup plan", "provider"): ["warmup", "plan", "--provider", "gogle"],
    ("warmup simulate", "sender"): ["warmup", "simulate", "--sender", "adda"],
    ("warmup simulate", "provider"): ["warmup", "simulate", "--provider", "gogle"],
    ("warmup status", "sender"): ["warmup", "status", "adda"],
    ("warmup override", "sender"): ["warmup", "override", "adda", "google", "--cap", "1", "--why", "test"],
    ("warmup override", "provider"): ["warmup", "override", "ada", "gogle", "--cap", "1", "--why", "test"],
    ("warmup override", "identity"): [
        *("warmup", "override", "ada", "google", "--cap", "1", "--why", "test", "--identity", "ada@example.co"),
    ],
    ("warmup overflow", "campaign"): ["warmup", "overflow", "sprong"],
    ("explain", "subject"): ["explain", "rob@example.org"],
    ("explain", "campaign"): ["explain", "bob@example.org", "--campaign", "sprong"],
    ("campaign delays", "name"): ["campaign", "delays", "sprong"],
    ("queue job", "id_"): ["queue", "job", "4711"],
    ("queue job", "queue"): ["queue", "job", "1", "--queue", "email:sent"],
    ("queue explain", "id_"): ["queue", "explain", "4711"],
    ("queue explain", "queue"): ["queue", "explain", "1", "--queue", "email:sent"],
    ("queue reschedule", "ids"): ["queue", "reschedule", "4711", "--to", "1h"],
    ("queue reschedule", "queue"): ["queue", "reschedule", "1", "--to", "1h", "--queue", "email:sent"],
    ("queue cancel", "ids"): ["queue", "cancel", "4711"],
    ("queue cancel", "queue"): ["queue", "cancel", "1", "--queue", "email:sent"],
    ("queue stats", "queue"): ["queue", "stats", "--queue", "email:sent"],
    ("queue dead", "queue"): ["queue", "dead", "--queue", "email:sent"],
    ("queue replay", "ids"): ["queue", "replay", "4711"],
    ("queue replay", "cause"): ["queue", "replay", "--cause", "tempalte"],
    ("queue replay", "queue"): ["queue", "replay", "--all", "--queue", "email:sent"],
    ("queue drop", "ids"): ["queue", "drop", "4711"],
    ("queue drop", "cause"): ["queue", "drop", "--cause", "tempalte"],
    ("queue drop", "queue"): ["queue", "drop", "--all", "--queue", "email:sent"],
    ("queue gate set", "gate"): ["queue", "gate", "set", "sender:adda@example.com", "--rate", "1/1s"],
    ("queue gate set", "queue"): ["queue", "gate", "set", "queue", "--rate", "1/1s", "--queue", "email:sent"],
    ("queue gate list", "queue"): ["queue", "gate", "list", "--queue", "email:sent"],
    ("queue gate suspend", "gate"): ["queue", "gate", "suspend", "sender:adda@example.com"],
    ("queue gate suspend", "queue"): ["queue", "gate", "suspend", "queue", "--queue", "email:sent"],
    ("queue gate resume", "gate"): ["queue", "gate", "resume", "sender:adda@example.com"],
    ("queue gate resume", "queue"): ["queue", "gate", "resume", "queue", "--queue", "email:sent"],
    ("queue uncertain list", "queue"): ["queue", "uncertain", "list", "--queue", "email:sent"],
    ("queue uncertain resolve", "job"): ["queue", "uncertain", "resolve", "4711", "dead"],
    ("queue uncertain resolve", "queue"): ["queue", "uncertain", "resolve", "1", "dead", "--queue", "email:sent"],
    ("api-key revoke", "name"): ["api-key", "revoke", "shop"],
    ("webhook log", "name"): ["webhook", "log", "shpo"],
    ("webhook log", "event"): ["webhook", "log", "--event", "evt_4711"],
    ("webhook send-test", "name"): ["webhook", "send-test", "shpo"],
    ("webhook redeliver", "name"): ["webhook", "redeliver", "shpo", "evt_4711"],
    ("webhook redeliver", "events"): ["webhook", "redeliver", "shop", "evt_4711"],
    ("webhook replay", "name"): ["webhook", "replay", "shpo", "--since", "1d"],
    ("webhook enable", "name"): ["webhook", "enable", "shpo"],
    ("webhook disable", "name"): ["webhook", "disable", "shpo"],
    ("dkim record", "sender"): ["dkim", "record", "adda"],
    ("dns canary", "sender"): ["dns", "canary", "adda"],
    ("dns reports", "domain"): ["dns", "reports", "--domain", "example.co"],
    ("console user remove", "name"): ["console", "user", "remove", "adda@example.com"],
}
"""By command and parameter: a call that names what does not exist."""

NEW = {
    ("worker", "name"): "a name for this process",
    ("console link", "name"): "the name of the user is recorded only",
    ("console user add", "name"): "it makes the user",
    ("audit list", "action"): "an action that was not done has no record",
    ("recorder", "name"): "a name for this process",
    ("audience import", "name"): "it makes the audience",
    ("permission record", "address"): "it makes the recipient, of whom the consent is the evidence",
    ("event record", "name"): "it makes the event",
    ("event import", "event"): "it makes the events",
    ("suppression add", "addresses"): "it makes the suppression",
    ("api-key create", "name"): "it makes the key",
    ("dkim keygen", "domain"): "the key is for any domain",
    ("dkim keygen", "selector"): "it makes the key",
    ("dns check", "domain"): "any domain can be checked",
    ("dns check", "bounce_domain"): "any domain can be checked",
    ("dns check", "dkim_selector"): "what does not exist is a finding",
    ("warmup import postmaster", "domain"): "it is kept, and the command says that no sender has it",
}
"""Parameters that name what need not exist, and why."""

NO_NAMES = {
    *("rate", "drain", "metrics_host", "smtp", "lmtp", "host", "speed", "start", "within", "since", "to", "until"),
    *("for_", "reply", "reason", "by", "why", "deadline", "sender_ip", "helo", "resolver", "seed"),
    *("at", "field", "key", "expires"),
    *("where", "server"),
    *("source", "ip", "wording", "confirmation"),
    *("persona", "algorithm"),  # One of a few words: any other word ends with 2, and a list of them.
}
"""Parameters that are values."""

NUMBERS_OF_THINGS = {("cohort resume", "pause")}
"""Parameters within a range that are the number of something that exists or does not."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site")) as site:
        yield site


def _texts() -> Iterator[tuple[str, str]]:
    for words, command in commands().items():
        for parameter in command.params:
            kind = parameter.type_descriptor
            is_number = kind.is_ranged and (words, parameter.name) not in NUMBERS_OF_THINGS
            is_value = kind.is_choice or is_number or kind.is_path or kind.annotation is bool
            if parameter.name != "help" and not is_value and "Path" not in str(kind.annotation):
                yield words, parameter.name


def test_every_parameter_is_a_name_that_is_tried_here_or_none() -> None:
    texts = set(_texts())
    named = {each for each in texts if each[1] not in NO_NAMES and each != ("queue dead", "by")}
    assert named == TYPOS.keys() | NEW.keys()


@pytest.mark.parametrize("words", TYPOS.values(), ids=" ".join)
def test_a_name_that_does_not_exist_is_refused(words: list[str], site: Site) -> None:
    done = site.run(*words)
    assert done.returncode == NOT_FOUND, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("error ")
    assert len(done.stderr.splitlines()) == 2, "it says what to do"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("campaign", "pause", "sprong"), "spring"),
        (("audience", "refusals", "poeple"), "people"),
        (("queue", "gate", "suspend", "sender:adda@example.com"), "sender:ada@example.com"),
        (("queue", "stats", "--queue", "email:sent"), "email:send"),
        (("dkim", "record", "adda"), "ada"),
        (("warmup", "plan", "--provider", "gogle"), "google"),
        (("bounce", "poll", "bos"), "box"),
    ],
)
def test_the_error_names_what_may_be_meant(words: tuple[str, ...], meant: str, site: Site) -> None:
    done = site.run(*words, "--json")
    error = json.loads(done.stderr)["error"]
    assert f"Did you mean {meant!r}" in error["remedy"] or f" {meant!r}" in error["remedy"]


@pytest.mark.parametrize(
    "gate",
    [
        "queue",
        "route:relay",
        "campaign:spring",
        "sender:ada@example.com",
        "hold:ada@example.com",
        "provider:google",
        "provider:google:ada@example.com",
        "warmup:google:ada@example.com",
    ],
)
def test_a_gate_is_suspended_before_any_job_made_it(gate: str, site: Site) -> None:
    done = site.run("queue", "gate", "suspend", gate, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"gate": gate, "queue": "email:send", "paused": True, "until": None}
    assert _claims(site, gate) == 0, "a job that comes later waits behind it"
    assert json.loads(site.run("queue", "gate", "resume", gate, "--json").stdout)["paused"] is False
    assert _claims(site, gate) == 1


def _claims(site: Site, gate: str) -> int:
    """Enqueue a job behind the gate, once, and count what a worker may claim."""

    async def work() -> int:
        with chdir(site.folder):
            settings = Settings.load()
        async with open_context(settings) as context:
            queue = await context.queue("email:send")
            lane = Lane(name=f"test {gate}", gates=(gate,), job_class=JobClass.NORMAL)
            await queue.enqueue(lane, [Job(id=gate, payload=b"")])
            batch = await queue.claim("test", want=10, lease_ms=60_000, nonce=uuid4().hex)
            return len(batch.jobs)

    return asyncio.run(work())


def test_a_gate_of_your_own_is_made_when_it_is_asked_for(site: Site) -> None:
    assert site.run("queue", "gate", "set", "mine", "--rate", "1/1s").returncode == NOT_FOUND
    assert site.run("queue", "gate", "set", "mine", "--rate", "1/1s", "--new").returncode == 0
    assert site.run("queue", "gate", "suspend", "mine").returncode == 0, "it exists now"


def test_a_refused_name_changes_nothing(site: Site) -> None:
    before = site.run("queue", "gate", "list", "--json").stdout
    site.run("queue", "gate", "suspend", "sender:adda@example.com")
    site.run("queue", "gate", "set", "nothing", "--concurrency", "1")
    assert site.run("queue", "gate", "list", "--json").stdout == before
