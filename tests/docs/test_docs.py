"""What there is, is documented, and what is documented is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from postroad import errors
from postroad.settings import (
    DEFAULT_QUEUES,
    ApiSettings,
    ApprovalSettings,
    AudienceSettings,
    BounceSettings,
    CalendarSettings,
    CanarySettings,
    CohortBreakerSettings,
    ConsoleSettings,
    DeliverySettings,
    DkimSettings,
    DnsHealthSettings,
    DnsSettings,
    EvidenceSettings,
    FilesSettings,
    InboundSettings,
    MailgunWebhook,
    OAuthSettings,
    OidcSettings,
    PostmarkWebhook,
    PreflightSettings,
    ProxyHeaderSettings,
    QueueSettings,
    RelaySettings,
    RetentionSettings,
    RouteSettings,
    SeedSettings,
    SenderSettings,
    SendgridWebhook,
    SesWebhook,
    Settings,
    SourceSettings,
    TimeoutSettings,
    WarmupSettings,
    WebhookSettings,
    WebSettings,
)
from postroad.settings.webhooks_out import WebhookEndpointSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])


def _settings() -> Iterator[str]:
    sections: dict[str, type[BaseModel]] = {
        "api": ApiSettings,
        "audiences": AudienceSettings,
        "webhooks_out": WebhookEndpointSettings,
        "senders": SenderSettings,
        "routes": RouteSettings,
        "queues": QueueSettings,
        "delivery": DeliverySettings,
        "dns": DnsSettings,
        "dns_health": DnsHealthSettings,
        "web": WebSettings,
        "web.webhooks": WebhookSettings,
        "web.webhooks.ses": SesWebhook,
        "web.webhooks.sendgrid": SendgridWebhook,
        "web.webhooks.postmark": PostmarkWebhook,
        "web.webhooks.mailgun": MailgunWebhook,
        "console": ConsoleSettings,
        "console.oidc": OidcSettings,
        "console.proxy": ProxyHeaderSettings,
        "routes.oauth": OAuthSettings,
        "routes.timeouts": TimeoutSettings,
        "bounce": BounceSettings,
        "senders.warmup": WarmupSettings,
        "senders.warmup.seeds": SeedSettings,
        "approval": ApprovalSettings,
        "calendar": CalendarSettings,
        "canary": CanarySettings,
        "files": FilesSettings,
        "preflight": PreflightSettings,
        "retention": RetentionSettings,
        "bounce.sources": SourceSettings,
        "inbound": InboundSettings,
        "cohort_breaker": CohortBreakerSettings,
        "cohort_breaker.hard_bounces": EvidenceSettings,
        "cohort_breaker.complaints": EvidenceSettings,
    }

    def fields(name: str) -> Iterator[str]:
        for field in sections[name].model_fields:
            inner = f"{name}.{field}"
            yield from fields(inner) if inner in sections else [inner]

    for name in Settings.model_fields:
        if name in sections:
            yield from fields(name)
        else:
            yield name
    yield from (f"senders.dkim.{field}" for field in DkimSettings.model_fields)


@pytest.mark.parametrize("setting", list(_settings()))
def test_setting_has_a_row_in_the_reference(setting: str) -> None:
    assert f"| `{setting}` |" in (DOCS / "reference/settings.md").read_text(encoding="utf-8")


def test_every_documented_setting_exists() -> None:
    text = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE))
    assert documented == set(_settings())


def test_every_shaping_field_and_rule_is_documented() -> None:
    from postroad.shaping.config import AdaptiveRate, read_shaping
    from postroad.shaping.limits import ReceiverLimits
    from postroad.shaping.rules import ShapingRule

    text = (DOCS / "reference/shaping.md").read_text(encoding="utf-8")
    for model in (ReceiverLimits, ShapingRule, AdaptiveRate):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in text
    for name in read_shaping(None).rule:
        assert f"| `{name}` |" in text


def test_every_setting_of_a_relay_is_documented() -> None:
    text = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    for field in RelaySettings.model_fields:
        assert f"| `routes.{field}" in text or f"`{field}`" in text


def test_every_queue_is_documented_with_its_limits() -> None:
    text = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+:\w+)` \| (\d+) \| (\S+) \|$", text, re.MULTILINE)
    assert [(name, int(concurrency), rate) for name, concurrency, rate in rows] == [
        (name, limits.concurrency, str(limits.rate or "–")) for name, limits in DEFAULT_QUEUES.items()
    ]


def test_the_reference_of_the_api_is_up_to_date() -> None:
    from postroad.api.reference import reference

    assert reference() == (DOCS / "reference/api.md").read_text(encoding="utf-8"), "run `make docs`"


def test_the_command_reference_is_up_to_date() -> None:
    written = subprocess.run(
        [sys.executable, "-m", "typer", "postroad.cli.app", "utils", "docs", "--name", "postroad"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    kept = (DOCS / "reference/commands.md").read_text(encoding="utf-8")
    assert written.strip() == kept.strip(), "run `make docs`"


def _error_classes(root: type[errors.PostroadError]) -> Iterator[type[errors.PostroadError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from _error_classes(kind)


def test_every_exit_code_is_unique_and_documented() -> None:
    kinds = list(_error_classes(errors.PostroadError))
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    text = (DOCS / "reference/exit-codes.md").read_text(encoding="utf-8")
    assert set(map(str, codes)) <= set(re.findall(r"^\| (\d+) \|", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in _anchors(linked), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "adr/README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("adr/0*.md"):
        assert f"]({page.name})" in index


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = [page.name[:4] for page in DOCS.glob("adr/0*.md")]
    assert len(numbers) == len(set(numbers)), sorted(number for number in numbers if numbers.count(number) > 1)


def test_the_glossary_has_each_term_once_in_alphabetical_order() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    terms = [term.lower() for term in re.findall(r"^\*\*(.+?)\*\* · ", text, re.MULTILINE)]
    assert terms == sorted(set(terms))


def test_touch_states_are_in_the_glossary() -> None:
    from postroad.store.ledger import LIVE, TouchState

    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    for state in TouchState:
        if state not in LIVE:
            assert state.value in text


def test_other_metrics_and_their_documentation_are_equal() -> None:
    """Those of a queue are compared with what it exposes, in tests/queue."""
    page = (DOCS / "reference/metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(postroad_(?!queue_)\w+)` \|", page, re.MULTILINE))
    made: set[str] = set()
    for path in (ROOT / "src/postroad").rglob("*.py"):
        for kind, name in re.findall(r'\b(Gauge|Counter|Histogram)\w*\(\s*"(postroad_\w+)"', path.read_text("utf-8")):
            made.add(name + "_total" * (kind == "Counter"))
    assert documented == {name for name in made if not name.startswith("postroad_queue_")}


def test_every_finding_of_dns_is_documented_with_its_verdict() -> None:
    from postroad.dns.finding import Code

    text = (DOCS / "reference/dns-findings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9.-]+)` \| (\w+) \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(code.word, code.verdict, code.why) for code in Code]


def test_every_finding_of_preflight_is_documented_with_its_level() -> None:
    from postroad.campaign.finding import PreflightCode

    text = (DOCS / "reference/preflight-findings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9.-]+)` \| (\w+) \| (.+) \|$", text, re.MULTILINE)
    assert sorted(rows) == sorted((code.word, code.level, code.why) for code in PreflightCode)
