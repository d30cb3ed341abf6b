"""Preflight checks the public URL, the sender, its route and its DNS, and unfinished imports."""

from __future__ import annotations

import pytest

from postroad.campaign.audience import abandon_imports, import_slice, open_import
from postroad.campaign.preflight import Level
from postroad.dns.finding import Code, make_finding
from postroad.dns.finding import Finding as DnsFinding
from postroad.dns.health import HealthReport
from postroad.errors import PreflightError, StateError
from postroad.senders.dns_health import record
from postroad.settings import DnsHealthSettings
from tests.campaign.checking import FOOT, fails, preflight, ready
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, CampaignProject


def test_a_fault_of_an_overflow_sender_is_found(project: CampaignProject) -> None:
    other = CONFIG.partition("[senders.news]")[2].partition("[[")[0].replace('"News"', '"Ada"')
    project.configure(CONFIG.replace('"News"', '"Ada Lovelace"') + "[senders.other]" + other.replace("news@", "other@"))
    ready(project, "{{ sender_name.split(' ')[1] }}" + FOOT)
    assert fails(project) == []
    project.apply(CAMPAIGN + "overflow: {senders: [other], within: 1d}\n")
    assert fails(project) == [
        "campaign spring, step hello, text, line 1: list object has no element 1 (for a@example.com, b@example.com)"
    ]


def test_a_public_url_that_is_not_set_fails(project: CampaignProject) -> None:
    project.configure(CONFIG.replace('public_url = "https://post.example.com"', ""))
    ready(project)
    assert fails(project) == ["public_url is not set, so the unsubscribe links would lead nowhere"]


@pytest.mark.parametrize("url", ["https://POSTROAD.INVALID", "https://postroad.invalid/", "https://x.invalid:8443/a"])
def test_a_public_url_without_a_host_fails_in_any_spelling(project: CampaignProject, url: str) -> None:
    project.configure(CONFIG.replace("https://post.example.com", url))
    ready(project)
    assert fails(project) == ["public_url is not set, so the unsubscribe links would lead nowhere"]


def test_a_public_url_without_tls_is_a_warning(project: CampaignProject) -> None:
    project.configure(CONFIG.replace("https://post", "http://post"))
    ready(project)
    report = preflight(project)
    assert report.ok
    assert [(finding.level, "RFC 8058" in finding.what) for finding in report.findings] == [(Level.WARN, True)]
    report.require_ok()


def test_a_sender_without_a_dkim_key_is_a_warning(project: CampaignProject) -> None:
    project.configure(CONFIG.partition("[[senders.news.dkim]]")[0])
    ready(project)
    report = preflight(project)
    assert report.ok
    (finding,) = report.findings
    assert finding.level is Level.WARN
    assert "its sender news has no DKIM key" in finding.what
    assert "postroad dkim keygen" in finding.remedy


def test_a_route_that_is_not_in_the_settings_fails(project: CampaignProject) -> None:
    ready(project)
    project.configure(CONFIG.replace("relay", "other"))
    assert fails(project) == ["its sender's route 'relay' is not in postroad.toml"]


def test_an_unfinished_import_fails_until_it_is_finished(project: CampaignProject) -> None:
    ready(project)
    path = project.folder / "more.csv"
    path.write_text("email\n" + "".join(f"r{n}@example.com\n" for n in range(10)), encoding="utf-8")
    progress = open_import(project.engine, "people", path, NOW)
    import_slice(project.engine, progress.import_id, NOW, rows=5)
    assert fails(project) == [f"the import of {path} was interrupted"]
    import_slice(project.engine, progress.import_id, NOW)
    assert fails(project) == []


def test_an_abandoned_import_prevents_no_launch(project: CampaignProject) -> None:
    ready(project)
    path = project.folder / "more.csv"
    path.write_text("address\n" + "".join(f"m{n}@example.com\n" for n in range(10)))
    import_slice(project.engine, open_import(project.engine, "people", path, NOW).import_id, NOW, rows=3)
    assert fails(project) == [f"the import of {path} was interrupted"]
    assert abandon_imports(project.engine, "people", NOW) == 1
    assert "interrupted" not in str(fails(project))
    assert preflight(project).recipients == 5
    assert abandon_imports(project.engine, "people", NOW) == 0
    with pytest.raises(StateError, match="no audience named"):
        abandon_imports(project.engine, "nobody", NOW)


def test_an_import_superseded_by_a_changed_file_is_no_finding(project: CampaignProject) -> None:
    ready(project)
    path = project.folder / "more.csv"
    path.write_text("email\n" + "".join(f"r{n}@example.com\n" for n in range(10)), encoding="utf-8")
    progress = open_import(project.engine, "people", path, NOW)
    import_slice(project.engine, progress.import_id, NOW, rows=5)
    path.write_text("email\nr0@example.com\n", encoding="utf-8")
    newer = open_import(project.engine, "people", path, NOW)
    assert fails(project) == [f"the import of {path} was interrupted"]
    import_slice(project.engine, newer.import_id, NOW)
    assert fails(project) == []


def test_an_unfinished_import_of_another_audience_is_ignored(project: CampaignProject) -> None:
    ready(project)
    path = project.folder / "more.csv"
    path.write_text("email\nr@example.com\n", encoding="utf-8")
    open_import(project.engine, "others", path, NOW)
    assert fails(project) == []


BAD = make_finding(Code.DMARC_MISSING, "acme.dev", "no record at _dmarc.acme.dev")

LOGO = make_finding(Code.STS_INVALID, "acme.dev", "the policy cannot be had")


def sender_checked(
    project: CampaignProject, *findings: DnsFinding, config: str = "", grace_ms: int = 86_400_000
) -> None:
    project.configure(CONFIG.replace("news@example.com", "news@acme.dev") + config)
    ready(project)
    if findings:
        report = HealthReport(domain="acme.dev", checked_at=NOW, findings=findings)
        record(project.engine, "news@acme.dev", report, DnsHealthSettings(grace_ms=grace_ms))


def test_a_sender_whose_dns_was_not_checked_is_a_warning(project: CampaignProject) -> None:
    sender_checked(project)
    [finding] = preflight(project).findings
    assert (finding.level, finding.what) == (Level.WARN, "the DNS of news@acme.dev was not checked yet")


def test_a_sender_with_valid_dns_has_no_finding(project: CampaignProject) -> None:
    sender_checked(project, make_finding(Code.DMARC_OK, "acme.dev", "p=reject"), LOGO)
    assert preflight(project).findings == ()


def test_a_sender_whose_dns_fails_warns_or_fails_as_configured(
    project: CampaignProject,
) -> None:
    sender_checked(project, BAD)
    [finding] = preflight(project).findings
    assert finding.level is Level.WARN
    assert "2026-05-04 08:30 UTC: DMARC acme.dev: no record at _dmarc.acme.dev" in finding.what
    assert finding.remedy == "`postroad dns check acme.dev` shows what to publish."
    project.configure(CONFIG + '[dns_health]\npreflight = "fail"\n')
    with pytest.raises(PreflightError, match=r"the DNS of news@acme\.dev fails"):
        preflight(project).require_ok()


def test_a_sender_on_hold_is_a_warning(project: CampaignProject) -> None:
    sender_checked(project, BAD, grace_ms=0)
    assert "mail of news@acme.dev is held back since 2026-05-04 08:30 UTC: its DNS fails" in [
        finding.what for finding in preflight(project).findings
    ]
