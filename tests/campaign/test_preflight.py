"""Preflight: everything that is wrong is found before anything is sent, and said with the number it concerns."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.campaign.audience import abandon_imports, import_slice, open_import
from postroad.campaign.preflight import Level, PreflightReport, check
from postroad.dns.finding import Code, found
from postroad.dns.finding import Finding as DnsFinding
from postroad.dns.health import HealthReport
from postroad.errors import PreflightError, StateError
from postroad.mail.template import MessageTemplate
from postroad.mail.token import TokenSigner
from postroad.senders.dns_health import record
from postroad.settings import DnsHealthSettings
from postroad.store.campaign import Step
from postroad.store.engine import write
from tests.campaign.house import CAMPAIGN, CONFIG, NOW, TEXT, House
from tests.campaign.tables import row_counts

SIGNER = TokenSigner(SecretStr("key"))
FOOT = "\n{{ postal_address }} {{ unsubscribe_url }}\n"


def preflight(house: House) -> PreflightReport:
    return check(house.engine, house.settings, SIGNER, "spring")


def fails(house: House) -> list[str]:
    return [finding.what for finding in preflight(house).findings if finding.level is Level.FAIL]


def ready(house: House, text: str = TEXT, campaign: str = CAMPAIGN) -> None:
    house.template("hello.txt", text)
    house.fill(["a@example.com,,Ada", "b@example.com,,"])
    house.apply(campaign)


def keep(house: House, name: str, **settings: str) -> None:
    """Put templates into the store that no campaign file could bring there."""
    with write(house.engine) as connection:
        table = Step.__table__  # type: ignore[attr-defined]
        step = connection.execute(sa.select(table).where(table.c.name == name)).one()
        connection.execute(sa.update(Step).where(table.c.name == name).values(settings={**step.settings, **settings}))


def test_a_good_campaign_has_no_findings(house: House) -> None:
    ready(house)
    before = row_counts(house.engine)
    report = preflight(house)
    assert (report.ok, report.recipients, report.findings) == (True, 2, ())
    report.require_ok()
    assert row_counts(house.engine) == before


def test_a_campaign_that_is_not_there_is_said(house: House) -> None:
    with pytest.raises(StateError, match="no campaign named 'spring'"):
        preflight(house)


def test_an_empty_audience_fails(house: House) -> None:
    house.apply()
    assert fails(house) == ["its audience 'people' is empty"]


def test_a_missing_merge_field_is_found_for_all_who_lack_it(house: House) -> None:
    house.fill(
        [*(f"r{n}@example.com,,R" for n in range(7)), *(f"s{n}@example.com,," for n in range(1_300)), "t@example.com,,"]
    )
    house.template("hello.txt", "Hello {{ name }}," + FOOT)
    house.apply()
    (found,) = fails(house)
    assert found.startswith("campaign spring, step hello, text, line 1: 'name' is undefined (for s0@example.com, ")
    assert found.endswith("@example.com and 1,298 others)")


def test_one_who_lacks_a_field_is_named_alone(house: House) -> None:
    ready(house, "Hello {{ name }}," + FOOT)
    assert fails(house) == ["campaign spring, step hello, text, line 1: 'name' is undefined (for b@example.com)"]
    with pytest.raises(PreflightError, match=r"may not be launched: .*'name' is undefined") as caught:
        preflight(house).require_ok()
    assert "default" in (caught.value.remedy or "")


def test_each_set_of_fields_is_rendered_once_however_many_have_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fill(
        [f"r{n}@example.com,,{'x' if n % 2 else ''},{'y' if n % 3 else ''},z" for n in range(600)],
        header="email,tz,one,two,unused",
    )
    house.template("hello.txt", "{{ one|default('') }}{{ two|default('') }}" + FOOT)
    house.apply(CAMPAIGN.replace("Hello {{ name|default('you') }}", "Hello"))
    rendered: list[str] = []
    render = MessageTemplate.render

    def counting(self: MessageTemplate, fields: dict[str, Any]) -> str:
        rendered.append(self.name)
        return render(self, fields)

    monkeypatch.setattr(MessageTemplate, "render", counting)
    assert fails(house) == []
    assert len(rendered) == 2 * 4  # subject and text, for each of four sets of fields


def test_a_field_that_only_some_texts_use_is_missed_only_where_it_is_used(house: House) -> None:
    text = "{% if name is defined %}Hello {{ name }}{% else %}Hello{% endif %}{{ city|default('') }}" + FOOT
    ready(house, text)
    assert fails(house) == []


def test_a_field_of_any_script_is_found_present_or_missing(house: House) -> None:
    house.fill(["a@example.com,XL,Ада", "b@example.com,,Боб"], header="email,Größe,имя")
    house.template("hello.txt", "{{ größe }} {{ имя }}" + FOOT)
    house.apply()
    assert fails(house) == ["campaign spring, step hello, text, line 1: 'größe' is undefined (for b@example.com)"]


def test_a_field_that_nobody_has_fails_for_all(house: House) -> None:
    ready(house, "{{ surname }}" + FOOT)
    assert fails(house) == [
        "campaign spring, step hello, text, line 1: 'surname' is undefined (for a@example.com, b@example.com)"
    ]


def test_a_missing_field_of_the_subject_is_found(house: House) -> None:
    ready(house, campaign=CAMPAIGN.replace("|default('you')", ""))
    assert fails(house) == ["campaign spring, step hello, subject, line 1: 'name' is undefined (for b@example.com)"]


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("Hello. {{ postal_address }}", ["unsubscribe_url"]),
        ("Hello. {{ unsubscribe_url }}", ["postal_address"]),
        ("Hello.", ["unsubscribe_url", "postal_address"]),
    ],
)
def test_a_text_without_a_way_out_or_an_address_fails(house: House, text: str, lacks: list[str]) -> None:
    ready(house, text)
    assert fails(house) == [f"campaign spring, step hello, text has no {{{{ {field} }}}}" for field in lacks]


def test_both_bodies_need_a_way_out(house: House) -> None:
    house.template("hello.html", "<p>Hello</p>{{ postal_address }}")
    ready(house, campaign=CAMPAIGN + "    html: hello.html\n")
    assert fails(house) == ["campaign spring, step hello, html has no {{ unsubscribe_url }}"]


def test_a_mistake_of_a_template_is_said_with_its_line(house: House) -> None:
    ready(house)
    keep(house, "hello", text="Hello\n{% if name %}\n" + FOOT)
    (found,) = fails(house)
    assert found.startswith("campaign spring, step hello, text, line ")
    assert "endif" in found


def test_one_name_of_one_word_among_thousands_is_found(house: House) -> None:
    house.fill([*(f"r{n}@example.com,,Ada L{n % 9}" for n in range(4_500)), "zz@example.com,,Cher"])
    house.template("hello.txt", "Hello" + FOOT)
    house.apply(CAMPAIGN.replace("{{ name|default('you') }}", "{{ name.split(' ')[1] }}"))
    seen: list[tuple[int, int]] = []
    report = check(house.engine, house.settings, SIGNER, "spring", progress=lambda *counts: seen.append(counts))
    (finding,) = report.findings
    assert finding.what == (
        "campaign spring, step hello, subject, line 1: list object has no element 1 (for zz@example.com)"
    )
    assert (finding.recipients, finding.examples) == (1, ("zz@example.com",))
    assert "preview NAME --recipient" in finding.remedy
    assert seen[-1] == (4_501, 4_501)
    assert len(seen) == 3


def test_a_column_of_the_name_of_a_field_of_ours_is_a_warning(house: House) -> None:
    house.fill(["a@example.com,Elm Street,Ada", "b@example.com,,Bob"], header="email,postal_address,sender_name")
    house.apply()
    [finding] = preflight(house).findings
    assert (finding.level, finding.recipients) == (Level.WARN, 1)
    assert finding.what == (
        "campaign spring, step hello shows {{ postal_address }}, which Postroad fills in, "
        "and not the column of 1 recipients"
    )


def test_a_trial_that_takes_too_long_says_how_far_it_came(house: House) -> None:
    house.fill([f"r{n}@example.com,,Ada" for n in range(2_500)])
    house.apply()
    report = check(house.engine, house.settings, SIGNER, "spring", budget_s=0)
    assert report.ok
    assert "only the first 2,000 of 2,500 recipients were tried" in report.findings[0].what


def test_what_fails_for_a_sender_that_takes_over_is_found(house: House) -> None:
    other = CONFIG.partition("[senders.news]")[2].partition("[[")[0].replace('"News"', '"Ada"')
    house.configure(CONFIG.replace('"News"', '"Ada Lovelace"') + "[senders.other]" + other.replace("news@", "other@"))
    ready(house, "{{ sender_name.split(' ')[1] }}" + FOOT)
    assert fails(house) == []
    house.apply(CAMPAIGN + "overflow: {senders: [other], within: 1d}\n")
    assert fails(house) == [
        "campaign spring, step hello, text, line 1: list object has no element 1 (for a@example.com, b@example.com)"
    ]


def test_every_step_is_checked(house: House) -> None:
    house.template("again.txt", "{{ nothing }}" + FOOT)
    ready(house, campaign=CAMPAIGN + "  - wait: 1d\n  - email: again\n    subject: Again\n    text: again.txt\n")
    keep(house, "again", subject="{{")
    found = fails(house)
    assert len(found) == 1
    assert found[0].startswith("campaign spring, step again, subject, line 1: ")


def test_a_template_that_fails_is_found(house: House) -> None:
    ready(house, "{{ 1 / 0 }}" + FOOT)
    (found,) = fails(house)
    assert "division by zero" in found
    assert "for a@example.com, b@example.com" in found


def test_a_public_url_that_is_not_set_fails(house: House) -> None:
    house.configure(CONFIG.replace('public_url = "https://post.example.com"', ""))
    ready(house)
    assert fails(house) == ["public_url is not set, so the unsubscribe links would lead nowhere"]


@pytest.mark.parametrize("url", ["https://POSTROAD.INVALID", "https://postroad.invalid/", "https://x.invalid:8443/a"])
def test_a_public_url_of_no_host_fails_however_it_is_written(house: House, url: str) -> None:
    house.configure(CONFIG.replace("https://post.example.com", url))
    ready(house)
    assert fails(house) == ["public_url is not set, so the unsubscribe links would lead nowhere"]


def test_a_public_url_without_tls_is_a_warning(house: House) -> None:
    house.configure(CONFIG.replace("https://post", "http://post"))
    ready(house)
    report = preflight(house)
    assert report.ok
    assert [(finding.level, "RFC 8058" in finding.what) for finding in report.findings] == [(Level.WARN, True)]
    report.require_ok()


def test_a_sender_without_a_dkim_key_is_a_warning(house: House) -> None:
    house.configure(CONFIG.partition("[[senders.news.dkim]]")[0])
    ready(house)
    report = preflight(house)
    assert report.ok
    (finding,) = report.findings
    assert finding.level is Level.WARN
    assert "its sender news has no DKIM key" in finding.what
    assert "postroad dkim keygen" in finding.remedy


def test_html_that_cannot_be_made_is_found(house: House) -> None:
    """As it can happen when the store was written by another version."""
    house.template("hello.html", "<p>{{ unsubscribe_url }}{{ postal_address }}</p>")
    ready(house, campaign=CAMPAIGN + "    html: hello.html\n")
    assert fails(house) == []
    keep(house, "hello", html="<style>p{}</style><p {{ x }}>")
    (found,) = fails(house)
    assert "between the attributes" in found


def test_a_text_that_is_made_of_the_html_is_checked_too(house: House) -> None:
    house.template("hello.html", "<p>{{ name }} {{ postal_address }}</p><a href='{{ unsubscribe_url }}'>Leave</a>")
    ready(house, campaign=CAMPAIGN.replace("text: hello.txt", "html: hello.html"))
    assert fails(house) == ["campaign spring, step hello, text, line 1: 'name' is undefined (for b@example.com)"]


def test_a_route_that_is_gone_fails(house: House) -> None:
    ready(house)
    house.configure(CONFIG.replace("relay", "other"))
    assert fails(house) == ["its sender's route 'relay' is not in postroad.toml"]


def test_an_unfinished_import_fails_until_it_is_finished(house: House) -> None:
    ready(house)
    path = house.folder / "more.csv"
    path.write_text("email\n" + "".join(f"r{n}@example.com\n" for n in range(10)), encoding="utf-8")
    progress = open_import(house.engine, "people", path, NOW)
    import_slice(house.engine, progress.import_id, NOW, rows=5)
    assert fails(house) == [f"the import of {path} was cut short"]
    import_slice(house.engine, progress.import_id, NOW)
    assert fails(house) == []


def test_an_import_that_was_given_up_stops_no_launch(house: House) -> None:
    ready(house)
    path = house.folder / "more.csv"
    path.write_text("address\n" + "".join(f"m{n}@example.com\n" for n in range(10)))
    import_slice(house.engine, open_import(house.engine, "people", path, NOW).import_id, NOW, rows=3)
    assert fails(house) == [f"the import of {path} was cut short"]
    assert abandon_imports(house.engine, "people", NOW) == 1
    assert "cut short" not in str(fails(house))
    assert preflight(house).recipients == 5
    assert abandon_imports(house.engine, "people", NOW) == 0
    with pytest.raises(StateError, match="no audience named"):
        abandon_imports(house.engine, "nobody", NOW)


def test_an_import_whose_file_was_changed_and_imported_anew_is_no_longer_missed(house: House) -> None:
    ready(house)
    path = house.folder / "more.csv"
    path.write_text("email\n" + "".join(f"r{n}@example.com\n" for n in range(10)), encoding="utf-8")
    progress = open_import(house.engine, "people", path, NOW)
    import_slice(house.engine, progress.import_id, NOW, rows=5)
    path.write_text("email\nr0@example.com\n", encoding="utf-8")
    newer = open_import(house.engine, "people", path, NOW)
    assert fails(house) == [f"the import of {path} was cut short"]
    import_slice(house.engine, newer.import_id, NOW)
    assert fails(house) == []


def test_an_unfinished_import_of_another_audience_is_none_of_it(house: House) -> None:
    ready(house)
    path = house.folder / "more.csv"
    path.write_text("email\nr@example.com\n", encoding="utf-8")
    open_import(house.engine, "others", path, NOW)
    assert fails(house) == []


def test_all_that_is_wrong_is_found_at_once(house: House) -> None:
    house.configure(CONFIG.replace('public_url = "https://post.example.com"', ""))
    house.template("hello.txt", "Hello")
    house.apply()
    found = fails(house)
    assert len(found) == 4
    with pytest.raises(PreflightError) as caught:
        preflight(house).require_ok()
    assert all(what in caught.value.message for what in found)


def test_merge_fields_with_odd_values_are_rendered(house: House, engine: sa.Engine) -> None:
    assert engine is house.engine
    house.fill(['a@example.com,,"{{ 1 / 0 }} \'x\' \\ ""y"""'])
    house.template("hello.txt", "{{ name }}" + FOOT)
    house.apply()
    assert fails(house) == []


BAD = found(Code.DMARC_MISSING, "acme.dev", "no record at _dmarc.acme.dev")
LOGO = found(Code.STS_INVALID, "acme.dev", "the policy cannot be had")


def sender_checked(house: House, *findings: DnsFinding, config: str = "", grace_ms: int = 86_400_000) -> None:
    house.configure(CONFIG.replace("news@example.com", "news@acme.dev") + config)
    ready(house)
    if findings:
        report = HealthReport(domain="acme.dev", checked_at=NOW, findings=findings)
        record(house.engine, "news@acme.dev", report, DnsHealthSettings(grace_ms=grace_ms))


def test_a_sender_whose_dns_was_never_checked_is_said(house: House) -> None:
    sender_checked(house)
    [finding] = preflight(house).findings
    assert (finding.level, finding.what) == (Level.WARN, "the DNS of news@acme.dev was not checked yet")


def test_a_sender_whose_dns_is_well_is_not_mentioned(house: House) -> None:
    sender_checked(house, found(Code.DMARC_OK, "acme.dev", "p=reject"), LOGO)
    assert preflight(house).findings == ()


def test_a_sender_whose_dns_fails_is_a_warning_and_stops_the_launch_where_the_settings_say_so(house: House) -> None:
    sender_checked(house, BAD)
    [finding] = preflight(house).findings
    assert finding.level is Level.WARN
    assert "2026-05-04 08:30 UTC: DMARC acme.dev: no record at _dmarc.acme.dev" in finding.what
    assert finding.remedy == "`postroad dns check acme.dev` says what to publish."
    house.configure(CONFIG + '[dns_health]\npreflight = "fail"\n')
    with pytest.raises(PreflightError, match=r"the DNS of news@acme\.dev fails"):
        preflight(house).require_ok()


def test_a_sender_that_is_held_back_is_said(house: House) -> None:
    sender_checked(house, BAD, grace_ms=0)
    assert "mail of news@acme.dev is held back since 2026-05-04 08:30 UTC: its DNS fails" in [
        finding.what for finding in preflight(house).findings
    ]
