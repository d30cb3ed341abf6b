"""Preflight finds problems before anything is sent, with the number of affected recipients."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from postroad.campaign import preflight as preflight_module
from postroad.campaign.preflight import Level, check
from postroad.errors import PreflightError, StateError
from postroad.mail.template import MessageTemplate
from tests.campaign.checking import FOOT, SIGNER, fails, keep, preflight, ready
from tests.campaign.project import CAMPAIGN, CONFIG, CampaignProject
from tests.campaign.tables import row_counts


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
