"""Each recipient of a step gets one of its variants, the same one wherever it is asked for."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import launch
from postroad.campaign.preflight import check
from postroad.campaign.preview import PreviewRequest, preview
from postroad.campaign.status import summary
from postroad.campaign.variant_report import variant_report
from postroad.errors import ConfigError, DataError, StateError
from postroad.mail.token import TokenSigner
from postroad.store.bulk import id_rows
from postroad.store.campaign import steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, record_reply, record_unsubscribe
from postroad.store.retention import Before, delete_old
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.variant import counts_by_variant, fold_variant_counts
from postroad.store.variant_split import VariantSplit, content_of, split_of
from tests.campaign.project import CAMPAIGN, NOW, TEXT, CampaignProject
from tests.store.rows import add_newest_touch

SIGNER = TokenSigner(SecretStr("a key that is only used in tests"))
VARIANTS = """
    variants:
      - {name: question, subject: "Shall we?", share: 70}
      - {name: plain, share: 20}
      - {name: other, text: other.txt, share: 10}
"""
WITH_VARIANTS = CAMPAIGN.rstrip() + VARIANTS
PEOPLE = 600


def ready(project: CampaignProject, text: str = WITH_VARIANTS, people: int = PEOPLE) -> None:
    project.template("other.txt", "Other.\n" + TEXT)
    project.fill(f"p{n}@example.com,,Name{n}" for n in range(people))
    project.apply(text)


def variants(project: CampaignProject) -> dict[str, str | None]:
    statement = sa.text(
        "SELECT recipient.address, touch.variant FROM touch JOIN recipient ON recipient.id = touch.recipient_id"
    )
    with read(project.engine) as connection:
        return {row.address: row.variant for row in connection.execute(statement)}


def split(project: CampaignProject) -> VariantSplit:
    with read(project.engine) as connection:
        campaign_id = connection.execute(sa.text("SELECT id FROM campaign")).scalar_one()
        [step] = [step for step in steps_of(connection, campaign_id) if step.kind == "email"]
    found = split_of(campaign_id, step.name, step.settings)
    assert found is not None
    return found


def test_recipients_get_variants_by_their_shares_and_the_sums_are_exact(project: CampaignProject) -> None:
    ready(project)
    suppress_now(project.engine, ["p0@example.com"], SuppressionReason.MANUAL, "test", NOW)
    launch(project.engine, "spring", NOW)
    found = Counter(variants(project).values())
    assert found.total() == PEOPLE
    assert found["question"] == pytest.approx(0.7 * PEOPLE, abs=60)
    assert found["other"] == pytest.approx(0.1 * PEOPLE, abs=40)
    [step] = summary(project.engine, "spring").steps
    assert {name: sum(counts.values()) for name, counts in step.variants.items()} == found
    for state in TouchState:
        assert sum(counts[state] for counts in step.variants.values()) == step.counts[state]
    [of_step] = variant_report(project.engine, "spring").steps
    assert (of_step.touches, of_step.without_variant, of_step.decision) == (PEOPLE, 0, None)
    assert {each.name: each.touches for each in of_step.variants} == found


def test_a_draw_does_not_depend_on_order_or_time(project: CampaignProject) -> None:
    ready(project, people=50)
    before = {address: preview_of(project, address) for address in (f"p{n}@example.com" for n in range(50))}
    launch(project.engine, "spring", NOW + timedelta(days=1))
    assert variants(project) == before
    statement = sa.text("SELECT recipient_id, variant FROM touch")
    with read(project.engine) as connection:
        assert all(split(project).draw(id_) == variant for id_, variant in connection.execute(statement))


def preview_of(project: CampaignProject, address: str, variant: str | None = None) -> str | None:
    request = PreviewRequest(campaign="spring", address=address, variant=variant)
    return preview(project.engine, project.settings, SIGNER, {}, request, now=NOW).variant


def test_a_preview_shows_the_content_of_the_variant(project: CampaignProject) -> None:
    ready(project, people=1)
    shown = {
        name: preview(
            project.engine,
            project.settings,
            SIGNER,
            {},
            PreviewRequest(campaign="spring", variant=name),
            now=NOW,
        )
        for name in ("question", "plain", "other")
    }
    assert [each.subject for each in shown.values()] == ["Shall we?", "Hello Name0", "Hello Name0"]
    assert [each.text.startswith("Other.") for each in shown.values()] == [False, False, True]
    with pytest.raises(StateError, match="variant of step hello"):
        preview_of(project, "p0@example.com", "questoin")


def test_steps_draw_independently() -> None:
    two = [VariantSplit(campaign_id=1, step=step, shares={"a": 50, "b": 50}) for step in ("hello", "again")]
    pairs = Counter((two[0].draw(n), two[1].draw(n)) for n in range(4_000))
    assert all(number == pytest.approx(1_000, abs=120) for number in pairs.values())
    assert len(pairs) == 4


def test_outcomes_count_once_and_stay_when_touches_are_deleted(project: CampaignProject) -> None:
    ready(project, people=40)
    launch(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'accepted', settled_at = due_at"))
        rows = connection.execute(sa.text("SELECT id, variant FROM touch"))
        touches: dict[int, str] = {row.id: row.variant for row in rows}
        first, second = sorted(touches)[:2]
        for digest in ("x", "y", "x"):
            record_reply(connection, first, digest, NOW)
        for touch in (second, second, first):
            record_unsubscribe(connection, touch, "test", NOW)
    before = variant_report(project.engine, "spring").steps[0].variants
    assert sum(each.replied for each in before) == 1
    assert sum(each.unsubscribed for each in before) == 2
    assert {each.name: each.accepted for each in before} == {
        name: Counter(touches.values())[name] for name in ("question", "plain", "other")
    }
    assert {each.clicked for each in before} == {each.goal for each in before} == {None}
    with write(project.engine) as connection:
        fold_variant_counts(connection)
        connection.execute(sa.text("UPDATE campaign SET state = 'finished', finished_at = launched_at"))
        add_newest_touch(connection)
    late = NOW + timedelta(days=9)
    assert delete_old(project.engine, Before(late, late, late), late).touches == 38  # Two unsubscribed.
    assert variant_report(project.engine, "spring").steps[0].variants == before
    with read(project.engine) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM variant_outcome")).scalar_one() == 3


def test_counts_equal_a_count_over_the_touches(project: CampaignProject) -> None:
    ready(project, people=90)
    launch(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        for state in ("queued", "sending", "accepted", "bounced"):
            item, parameters = id_rows(connection, [id_ for (id_,) in connection.execute(SOME, {"rest": len(state)})])
            move = sa.text(f"UPDATE touch SET state = '{state}' FROM {item} WHERE touch.id = batch.id")
            connection.execute(move, parameters)
    with read(project.engine) as connection:
        counted = connection.execute(sa.text("SELECT variant, state, count(*) FROM touch GROUP BY variant, state"))
        campaign_id = connection.execute(sa.text("SELECT id FROM campaign")).scalar_one()
        [kept] = counts_by_variant(connection, campaign_id).values()
    assert {(row[0], row[1]): row[2] for row in counted} == {
        (variant, state): n for variant, states in kept.items() for state, n in states.items()
    }


SOME = sa.text("SELECT id FROM touch WHERE id % 9 <> :rest")


def test_preflight_checks_every_variant(project: CampaignProject) -> None:
    ready(project, people=3)
    project.template("other.txt", "Nothing to leave by. {{ missing_field }}")
    project.apply(WITH_VARIANTS)
    report = check(project.engine, project.settings, SIGNER, "spring")
    found = {(finding.code, finding.step, finding.variant) for finding in report.findings if finding.level == "fail"}
    assert {code for code, *_ in found} >= {"body.no-unsubscribe", "render.fails"}
    whats = [finding.what for finding in report.findings if finding.code == "body.no-unsubscribe"]
    assert all("variant other" in what for what in whats)
    assert len(whats) == 1


@pytest.mark.parametrize(
    ("own", "html", "mjml"),
    [({"html": "<p>v</p>"}, "<p>v</p>", None), ({"mjml": "<mjml/>"}, None, "<mjml/>"), ({}, None, "<base/>")],
)
def test_html_of_a_variant_replaces_html_in_either_form(
    own: dict[str, str], html: str | None, mjml: str | None
) -> None:
    settings = {
        "subject": "s",
        "text": None,
        "html": None,
        "mjml": "<base/>",
        "variants": [{"name": "v", "share": 50, **own}, {"name": "w", "share": 50}],
    }
    content = content_of(settings, "v")
    assert (content["html"], content.get("mjml")) == (html, mjml)
    assert "variants" not in content
    with pytest.raises(KeyError):
        content_of(settings, "x")


WINNER = "    winner: {by: goal, decide: {after: 2d, at_most: 20%}}\n"
TWO = "    variants:\n      - {name: a, share: 50}\n      - {name: b, share: 50}\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("    variants:\n      - {name: a, share: 50}\n      - {name: b, share: 40}\n", 10, "50 \\+ 40 = 90"),
        ("    variants:\n      - {name: a, share: 50}\n      - {name: a, share: 50}\n", 10, "two variants are called"),
        ("    variants:\n      - {name: a, share: 99}\n", 10, "a is alone"),
        ("    variants:\n      - {name: a, share: 0}\n      - {name: b, share: 100}\n", 11, "variants.1.share"),
        ("    variants:\n      - {name: a, share: half}\n      - {name: b, share: 50}\n", 11, "variants.1.share"),
        ("    variants:\n      - {name: a, text: none.txt, share: 50}\n      - {name: b, share: 50}\n", 11, "none.txt"),
        ("    variants:\n      - {name: a, text: '../x', share: 50}\n      - {name: b, share: 50}\n", 11, "x"),
        ("    variants:\n      - {name: a, colour: red, share: 50}\n      - {name: b, share: 50}\n", 11, "colour"),
        (WINNER, 7, "needs variants"),
        (TWO + WINNER, 13, "the campaign has none"),
        (TWO + WINNER.replace("goal", "clicked"), 13, "clicks are not counted per recipient"),
        (TWO + WINNER.replace("goal", "bounced"), 13, "not a reason to win"),
        (TWO + WINNER.replace("20%", "120%"), 13, "write 1% to 100%"),
        (TWO + WINNER.replace("20%", "0.2"), 13, "write 1% to 100%"),
        (TWO + WINNER.replace("2d", "0s"), 13, "after"),
        (TWO + WINNER.replace("2d", "soon"), 13, "after"),
        (TWO + "    winner: {by: replied}\n", 13, "decide"),
    ],
)
def test_faults_name_file_line_and_field(tmp_path: Path, text: str, line: int, says: str) -> None:
    (tmp_path / "hello.txt").write_text(TEXT, encoding="utf-8")
    path = tmp_path / "campaign.yaml"
    path.write_text(CAMPAIGN.rstrip() + "\n" + text, encoding="utf-8")
    with pytest.raises((ConfigError, DataError), match=says) as found:
        read_campaign(path)
    assert f"{path}, line {line}" in str(found.value)


def test_a_launched_campaign_keeps_its_variants(project: CampaignProject) -> None:
    ready(project, people=2)
    launch(project.engine, "spring", NOW)
    with pytest.raises(StateError, match="variants of step 'hello' cannot change: step 'hello' has 2 people in it"):
        project.apply(WITH_VARIANTS.replace("share: 70", "share: 60").replace("share: 20", "share: 30"))
    project.apply(WITH_VARIANTS.replace("Shall we?", "Shall we then?"))
    assert preview_subject(project, "question") == "Shall we then?"
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'accepted', settled_at = due_at"))
    with pytest.raises(StateError, match="2 people have"):
        project.apply(WITH_VARIANTS.replace("Shall we?", "Shall we not?"))


def preview_subject(project: CampaignProject, variant: str) -> str:
    request = PreviewRequest(campaign="spring", variant=variant)
    return preview(project.engine, project.settings, SIGNER, {}, request, now=NOW).subject
