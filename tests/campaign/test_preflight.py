"""Preflight finds problems before anything is sent, with the number of affected recipients."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.campaign import preflight as preflight_module
from postroad.campaign.audience import abandon_imports, import_slice, open_import
from postroad.campaign.preflight import Level, PreflightReport, check
from postroad.dns.finding import Code, make_finding
from postroad.dns.finding import Finding as DnsFinding
from postroad.dns.health import HealthReport
from postroad.errors import PreflightError, StateError
from postroad.mail.template import MessageTemplate
from postroad.mail.token import TokenSigner
from postroad.senders.dns_health import record
from postroad.settings import DnsHealthSettings
from postroad.store.campaign import Step
from postroad.store.engine import write
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, TEXT, CampaignProject
from tests.campaign.tables import row_counts

SIGNER = TokenSigner(SecretStr("key"))
FOOT = "\n{{ postal_address }} {{ unsubscribe_url }}\n"


def preflight(project: CampaignProject) -> PreflightReport:
    return check(project.engine, project.settings, SIGNER, "spring")


def fails(project: CampaignProject) -> list[str]:
    return [finding.what for finding in preflight(project).findings if finding.level is Level.FAIL]


def ready(project: CampaignProject, text: str = TEXT, campaign: str = CAMPAIGN) -> None:
    project.template("hello.txt", text)
    project.fill(["a@example.com,,Ada", "b@example.com,,"])
    project.apply(campaign)


def keep(project: CampaignProject, name: str, **settings: str) -> None:
    """Store templates that no campaign file could have."""
    with write(project.engine) as connection:
        table = Step.__table__  # type: ignore[attr-defined]
        step = connection.execute(sa.select(table).where(table.c.name == name)).one()
        connection.execute(sa.update(Step).where(table.c.name == name).values(settings={**step.settings, **settings}))


def test_a_good_campaign_has_no_findings(project: CampaignProject) -> None:
    ready(project)
    before = row_counts(project.engine)
    report = preflight(project)
    assert (report.ok, report.recipients, report.findings) == (True, 2, ())
    report.require_ok()
    assert row_counts(project.engine) == before


def test_an_unknown_campaign_is_an_error(project: CampaignProject) -> None:
    with pytest.raises(StateError, match="no campaign named 'spring'"):
        preflight(project)


def test_an_empty_audience_fails(project: CampaignProject) -> None:
    project.apply()
    assert fails(project) == ["its audience 'people' is empty"]


def test_a_missing_merge_field_is_found_for_all_recipients(project: CampaignProject) -> None:
    project.fill(
        [*(f"r{n}@example.com,,R" for n in range(7)), *(f"s{n}@example.com,," for n in range(1_300)), "t@example.com,,"]
    )
    project.template("hello.txt", "Hello {{ name }}," + FOOT)
    project.apply()
    (found,) = fails(project)
    assert found.startswith("campaign spring, step hello, text, line 1: 'name' is undefined (for s0@example.com, ")
    assert found.endswith("@example.com and 1,298 others)")


def test_one_recipient_without_a_field_is_named(project: CampaignProject) -> None:
    ready(project, "Hello {{ name }}," + FOOT)
    assert fails(project) == ["campaign spring, step hello, text, line 1: 'name' is undefined (for b@example.com)"]
    with pytest.raises(PreflightError, match=r"may not be launched: .*'name' is undefined") as caught:
        preflight(project).require_ok()
    assert "default" in (caught.value.remedy or "")


def test_each_set_of_fields_is_rendered_once(project: CampaignProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.fill(
        [f"r{n}@example.com,,{'x' if n % 2 else ''},{'y' if n % 3 else ''},z" for n in range(600)],
        header="email,tz,one,two,unused",
    )
    project.template("hello.txt", "{{ one|default('') }}{{ two|default('') }}" + FOOT)
    project.apply(CAMPAIGN.replace("Hello {{ name|default('you') }}", "Hello"))
    rendered: list[str] = []
    render = MessageTemplate.render

    def counting(self: MessageTemplate, fields: dict[str, Any]) -> str:
        rendered.append(self.name)
        return render(self, fields)

    monkeypatch.setattr(MessageTemplate, "render", counting)
    assert fails(project) == []
    # Subject and text: for each of four sets of fields, and for ten recipients whose content is checked.
    assert len(rendered) == 2 * 4 + 2 * 10


def test_an_optional_field_is_required_only_where_it_is_used(project: CampaignProject) -> None:
    text = "{% if name is defined %}Hello {{ name }}{% else %}Hello{% endif %}{{ city|default('') }}" + FOOT
    ready(project, text)
    assert fails(project) == []


def test_fields_in_any_script_are_checked(project: CampaignProject) -> None:
    project.fill(["a@example.com,XL,Ада", "b@example.com,,Боб"], header="email,Größe,имя")
    project.template("hello.txt", "{{ größe }} {{ имя }}" + FOOT)
    project.apply()
    assert fails(project) == ["campaign spring, step hello, text, line 1: 'größe' is undefined (for b@example.com)"]


def test_a_field_that_no_recipient_has_fails_for_all(project: CampaignProject) -> None:
    ready(project, "{{ surname }}" + FOOT)
    assert fails(project) == [
        "campaign spring, step hello, text, line 1: 'surname' is undefined (for a@example.com, b@example.com)"
    ]


def test_a_missing_field_of_the_subject_is_found(project: CampaignProject) -> None:
    ready(project, campaign=CAMPAIGN.replace("|default('you')", ""))
    assert fails(project) == ["campaign spring, step hello, subject, line 1: 'name' is undefined (for b@example.com)"]


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("Hello. {{ postal_address }}", ["unsubscribe_url"]),
        ("Hello. {{ unsubscribe_url }}", ["postal_address"]),
        ("Hello.", ["unsubscribe_url", "postal_address"]),
    ],
)
def test_a_text_without_link_or_address_fails(project: CampaignProject, text: str, lacks: list[str]) -> None:
    ready(project, text)
    assert fails(project) == [f"campaign spring, step hello, text has no {{{{ {field} }}}}" for field in lacks]


def test_both_bodies_need_an_unsubscribe_link(project: CampaignProject) -> None:
    project.template("hello.html", "<p>Hello</p>{{ postal_address }}")
    ready(project, campaign=CAMPAIGN + "    html: hello.html\n")
    assert fails(project) == ["campaign spring, step hello, html has no {{ unsubscribe_url }}"]


def test_a_template_error_names_its_line(project: CampaignProject) -> None:
    ready(project)
    keep(project, "hello", text="Hello\n{% if name %}\n" + FOOT)
    (found,) = fails(project)
    assert found.startswith("campaign spring, step hello, text, line ")
    assert "endif" in found


def test_one_failing_recipient_among_thousands_is_found(project: CampaignProject) -> None:
    project.fill([*(f"r{n}@example.com,,Ada L{n % 9}" for n in range(4_500)), "zz@example.com,,Cher"])
    project.template("hello.txt", "Hello" + FOOT)
    project.apply(CAMPAIGN.replace("{{ name|default('you') }}", "{{ name.split(' ')[1] }}"))
    seen: list[tuple[int, int]] = []
    report = check(project.engine, project.settings, SIGNER, "spring", progress=lambda *counts: seen.append(counts))
    (finding,) = report.findings
    assert finding.what == (
        "campaign spring, step hello, subject, line 1: list object has no element 1 (for zz@example.com)"
    )
    assert (finding.recipients, finding.examples) == (1, ("zz@example.com",))
    assert "preview NAME --recipient" in finding.remedy
    assert seen[-1] == (4_501, 4_501)
    assert len(seen) == 3


def test_a_column_named_like_a_reserved_field_is_a_warning(project: CampaignProject) -> None:
    header = "email,postal_address,sender_name,name"
    project.fill(["a@example.com,Elm Street,Ada,Ada", "b@example.com,,Bob,Bob"], header=header)
    project.apply()
    [finding] = preflight(project).findings
    assert (finding.level, finding.recipients) == (Level.WARN, 1)
    assert finding.what == (
        "campaign spring, step hello shows {{ postal_address }}, which is Postroad's value "
        "and not the column of 1 recipient"
    )


def test_a_slow_trial_reports_how_many_were_tried(project: CampaignProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_module, "RENDERING_S", 0)
    project.fill([f"r{n}@example.com,,Ada" for n in range(2_500)])
    project.apply()
    report = check(project.engine, project.settings, SIGNER, "spring")
    assert report.ok
    assert "only the first 2,000 of 2,500 recipients were tried" in report.findings[0].what


def test_a_fault_of_an_overflow_sender_is_found(project: CampaignProject) -> None:
    other = CONFIG.partition("[senders.news]")[2].partition("[[")[0].replace('"News"', '"Ada"')
    project.configure(CONFIG.replace('"News"', '"Ada Lovelace"') + "[senders.other]" + other.replace("news@", "other@"))
    ready(project, "{{ sender_name.split(' ')[1] }}" + FOOT)
    assert fails(project) == []
    project.apply(CAMPAIGN + "overflow: {senders: [other], within: 1d}\n")
    assert fails(project) == [
        "campaign spring, step hello, text, line 1: list object has no element 1 (for a@example.com, b@example.com)"
    ]


def test_every_step_is_checked(project: CampaignProject) -> None:
    project.template("again.txt", "{{ nothing }}" + FOOT)
    ready(project, campaign=CAMPAIGN + "  - wait: 1d\n  - email: again\n    subject: Again\n    text: again.txt\n")
    keep(project, "again", subject="{{")
    found = fails(project)
    assert len(found) == 1
    assert found[0].startswith("campaign spring, step again, subject, line 1: ")


def test_a_template_that_fails_is_found(project: CampaignProject) -> None:
    ready(project, "{{ 1 / 0 }}" + FOOT)
    (found,) = fails(project)
    assert "division by zero" in found
    assert "for a@example.com, b@example.com" in found


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


def test_html_that_cannot_be_compiled_is_found(project: CampaignProject) -> None:
    """This can happen if the database was written by another version."""
    project.template("hello.html", "<p>{{ unsubscribe_url }}{{ postal_address }}</p>")
    ready(project, campaign=CAMPAIGN + "    html: hello.html\n")
    assert fails(project) == []
    keep(project, "hello", html="<style>p{}</style><p {{ x }}>")
    (found,) = fails(project)
    assert "between the attributes" in found


def test_a_text_generated_from_html_is_checked(project: CampaignProject) -> None:
    project.template("hello.html", "<p>{{ name }} {{ postal_address }}</p><a href='{{ unsubscribe_url }}'>Leave</a>")
    ready(project, campaign=CAMPAIGN.replace("text: hello.txt", "html: hello.html"))
    assert fails(project) == ["campaign spring, step hello, text, line 1: 'name' is undefined (for b@example.com)"]


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


def test_all_findings_are_reported_together(project: CampaignProject) -> None:
    project.configure(CONFIG.replace('public_url = "https://post.example.com"', ""))
    project.template("hello.txt", "Hello")
    project.apply()
    found = fails(project)
    assert len(found) == 4
    with pytest.raises(PreflightError) as caught:
        preflight(project).require_ok()
    assert all(what in caught.value.message for what in found)


def test_merge_fields_with_odd_values_are_rendered(project: CampaignProject, engine: sa.Engine) -> None:
    assert engine is project.engine
    project.fill(['a@example.com,,"{{ 1 / 0 }} \'x\' \\ ""y"""'])
    project.template("hello.txt", "{{ name }}" + FOOT)
    project.apply()
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
