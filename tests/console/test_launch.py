"""The page before a launch: findings, real messages in a frame without scripts, a proof by the real route."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest
import sqlalchemy as sa

from postroad.app.approval import LaunchRequest, find_pending, request_approval
from postroad.campaign.finding import Level, PreflightFinding
from postroad.campaign.planned_variants import describe_variants, planned_variants
from postroad.campaign.preflight import PreflightReport
from postroad.console.screens import launch
from postroad.settings import AccessRole
from postroad.store.approval import Approval, ApprovalState, add_approval
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.campaign.project import CampaignProject
from tests.console.kit import Console, form_of, press
from tests.console.launch_project import FROM_FILE, HTML, HTML_CAMPAIGN, START
from tests.console.test_plain_markdown import SUMMARY
from tests.store.rows import add_campaign, add_recipient, add_touch


async def test_the_page_shows_who_gets_it_and_three_messages(console: Console, project: CampaignProject) -> None:
    http = await console.client(AccessRole.SEND)
    page = await http.get("/launch/spring")
    assert page.status_code == 200, page.text
    for number in range(3):
        assert f"Hello Reader {number}" in page.text
    frames = [unescape(src) for src in re.findall(r'<iframe sandbox="" src="([^"]+)"', page.text)]
    assert len(frames) == 3
    shown = await http.get(frames[0])
    assert "<p>Hello Reader 0</p>" in shown.text
    assert shown.headers["content-type"].startswith("text/html")
    policy = shown.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy, "no remote image loads"
    assert policy.endswith("sandbox"), "no script runs, also where the frame is opened by itself"
    assert "script-src" not in policy
    later = await http.get("/launch/spring?step=later")
    assert "Still there?" in later.text


async def test_findings_are_those_of_the_preflight(console: Console, project: CampaignProject) -> None:
    project.template("hello.txt", "Hello, without a link.\n")
    project.apply(HTML_CAMPAIGN)
    http = await console.client(AccessRole.SEND)
    page = await http.get("/launch/spring/findings")
    assert page.status_code == 200
    assert "Prevents the launch" in page.text
    assert "<html" in page.text, "without htmx it is a page"
    part = await http.get("/launch/spring/findings", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    stopped = await press(http, "/launch/spring/start")
    assert stopped.status_code >= 400
    assert "may not be launched" in stopped.text


@pytest.mark.parametrize(
    ("levels", "headings"),
    [
        ([Level.FAIL], ["Prevents the launch"]),
        ([Level.WARN, Level.INFO], ["Does not prevent the launch", "For information"]),
        ([], []),
    ],
)
async def test_a_finding_says_whether_it_prevents_the_launch(
    console: Console,
    project: CampaignProject,
    monkeypatch: pytest.MonkeyPatch,
    levels: list[Level],
    headings: list[str],
) -> None:
    findings = tuple(PreflightFinding(code="x", level=level, what="It is large", remedy="Cut it") for level in levels)

    async def preflight(*_: object) -> tuple[PreflightReport, None]:
        return PreflightReport(campaign="spring", recipients=3, findings=findings), None

    monkeypatch.setattr(launch, "preflight_with_file", preflight)
    page = (await (await console.client(AccessRole.SEND)).get("/launch/spring/findings")).text
    assert re.findall(r"<strong>([^<]+)</strong>", page) == headings
    assert ("The preflight found no problem. It checked 3 recipients." in page) is (not levels)


async def test_a_campaign_that_changed_after_the_page_is_not_launched(
    console: Console, project: CampaignProject
) -> None:
    http = await console.client(AccessRole.SEND)
    action, shown = form_of(await http.get("/launch/spring/start"))
    project.template("hello.html", HTML.replace("Hello", "Goodbye"))
    project.apply(HTML_CAMPAIGN)
    refused = await http.post(action, data=shown)
    assert refused.status_code == 409
    assert "has changed since" in refused.text
    assert form_of(refused)[1] != shown
    assert not console.audit()


async def test_the_forecast_says_when_it_is_over(console: Console, project: CampaignProject) -> None:
    http = await console.client(AccessRole.VIEW)
    page = await http.get("/campaigns/spring/forecast")
    assert page.status_code == 200
    assert "It ends" in page.text
    assert "later" in page.text
    missed = await http.get("/campaigns/spring/forecast", params={"deadline": "2020-01-01T00:00"})
    assert "missed" in missed.text
    wrong = await http.get("/campaigns/spring/forecast", params={"what_if": "sender"})
    assert "is not a change of a setting" in wrong.text


async def test_a_proof_to_an_address_that_is_none_is_refused(console: Console, project: CampaignProject) -> None:
    http = await console.client(AccessRole.SEND)
    page = await http.post("/launch/spring/proof", data={"to": "not an address", "step": ""})
    assert page.status_code == 422
    assert "is not a valid address" in page.text
    assert not [record for record in console.audit() if record.action == "campaign.proof"]


async def test_only_who_may_send_sees_the_launch(console: Console, project: CampaignProject) -> None:
    http = await console.client(AccessRole.VIEW)
    for path in ("/launch", "/launch/spring", "/launch/spring/message", "/launch/spring/source"):
        assert (await http.get(path)).status_code == 403, path


async def test_only_the_request_that_the_page_showed_is_approved(
    console: Console, project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The campaign is changed, and its launch requested again, while the page is open."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")  # No run waits for these requests.
    context, asked = console.parts.context, LaunchRequest(campaign="spring", asked_by="carl")
    project.apply(HTML_CAMPAIGN + "approval: always\n")
    shown = (await request_approval(context, asked)).approval
    http = await console.client(AccessRole.SEND)
    page = await http.get("/launch/spring/approve")
    assert shown is not None
    assert re.search(rf'name="request" value="{shown.id}"', page.text), page.text
    project.apply(HTML_CAMPAIGN + "approval: always\non_reply: continue\n")
    again = (await request_approval(context, asked)).approval
    assert again is not None
    for request in (str(shown.id), "", "x", "9" * 5_000):
        refused = await http.post("/launch/spring/approve", data={"request": request})
        assert refused.status_code == 409, request
        assert "was requested again after" in refused.text
    assert (await http.post("/launch/spring/approve", data={"request": str(again.id)})).status_code == 303
    pending = await find_pending(context, "spring")
    assert pending is not None
    assert (pending.id, pending.state) == (again.id, "approved")
    late = await console.client(AccessRole.SEND, user="late")
    assert (await late.post("/launch/spring/approve", data={"request": str(again.id)})).status_code == 303
    records = [(each.actor, each.count) for each in console.audit() if each.action == "campaign.approve"]
    assert records == [("late", 0), ("send@example.com", 3)], "one of them approved it"


async def test_a_campaign_that_ended_cannot_be_launched(console: Console, engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_campaign(connection, name="old", state=CampaignState.FINISHED)
    http = await console.client(AccessRole.SEND)
    assert (await http.get("/launch/old/start")).status_code == 409
    assert (await http.post("/launch/old/start", data={"shown": "x"})).status_code == 409


WITH_WINNER = """
    variants:
      - {name: question, share: 70, subject: "Shall we plant, {{ name|default('you') }}?"}
      - {name: plain, share: 30}
    winner: {by: replied, decide: {after: 2d, at_most: 20%}}
"""


async def test_a_launch_and_its_approval_show_the_variants(
    console: Console, project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    campaign = HTML_CAMPAIGN.replace("    html: hello.html\n", f"    html: hello.html{WITH_WINNER}", 1)
    project.apply(campaign + "approval: always\n")
    with read(console.engine) as connection:
        described = describe_variants(planned_variants(connection, "spring"))
    assert "* question, 70 %: Shall we plant\\, " in described
    assert "within 2d, with at most 20 % of the recipients before" in described
    await request_approval(console.parts.context, LaunchRequest(campaign="spring", asked_by="carl", summary=described))
    http = await console.client(AccessRole.SEND)
    asked = unescape((await http.get("/launch/spring/approve")).text)
    assert "variants of step hello: question 70 %, plain 30 %" in asked
    assert re.search(r'href="/launch/spring#variants"[^>]*>2</a>', asked)
    page = unescape((await http.get("/launch/spring?step=hello")).text)
    assert "Step hello has 2 variants." in page, "what was asked for"
    assert 'href="/campaigns/spring#variants"' in page
    [link] = set(re.findall(r'href="(/launch/spring\?step=hello&variant=question#messages)"', page))
    shown = unescape((await http.get(link)).text)
    assert len(re.findall(r"<h3>Shall we plant, Reader \d\?</h3>", shown)) == 3
    plain = unescape((await http.get(link.replace("question", "plain"))).text)
    assert len(re.findall(r"<h3>Hello Reader \d</h3>", plain)) == 3
    frames = re.findall(r'<iframe sandbox="" src="([^"]+)"', plain)
    assert all("variant=plain" in frame for frame in frames)
    assert (await http.get("/launch/spring?step=hello&variant=other")).status_code == 409


def add_request(
    console: Console, state: ApprovalState = ApprovalState.OPEN, *, age: timedelta = timedelta(), by: str | None = None
) -> None:
    asked = console.parts.now() - age
    with write(console.engine) as connection:
        campaign_id, _ = add_campaign(connection, name="spring", state=CampaignState.DRAFT)
        request = Approval(
            campaign_id=campaign_id,
            state=state,
            digest="0" * 64,
            people=353,
            summary=SUMMARY,
            requested_at=asked,
            requested_by="carl",
            expires_at=asked + timedelta(days=7),
            decided_by=by,
            decided_at=asked if by is not None else None,
        )
        add_approval(connection, request)


async def pages(console: Console) -> tuple[str, str]:
    http = await console.client(AccessRole.SEND)
    answers = [await http.get("/campaigns/spring"), await http.get("/launch/spring")]
    assert [answer.status_code for answer in answers] == [200, 200]
    return answers[0].text, answers[1].text


async def test_an_open_request_is_named_and_no_other_can_be_made(console: Console) -> None:
    add_request(console)
    campaign, launch = await pages(console)
    assert "Its launch waits for an approval" in campaign
    assert "carl asked for it" in campaign
    assert 'href="/launch/spring"' in campaign
    assert 'href="/launch/spring/approve"' in launch
    assert START not in launch
    assert "353 people get 1,027 messages." in launch, "no marks of Markdown"
    assert "step first-steps: 176 messages" in launch


async def test_an_expired_request_can_be_made_again(console: Console) -> None:
    add_request(console, age=timedelta(days=8))
    campaign, launch = await pages(console)
    assert "The request to launch it has expired" in campaign
    assert "The request for an approval has expired" in launch
    assert START in launch
    assert 'href="/launch/spring/approve"' not in launch


async def test_a_launch_that_is_approved_and_did_not_begin_can_be_begun(console: Console) -> None:
    add_request(console, ApprovalState.APPROVED, by="ada")
    campaign, launch = await pages(console)
    assert "Its launch is approved" in campaign
    assert "by ada" in campaign
    assert START in launch
    assert "Ask for approval" not in launch


async def test_a_launched_campaign_is_not_shown_as_one_that_would_be(console: Console, engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign_id, (step,) = add_campaign(connection, name="spring", launched_at=console.parts.now())
        add_touch(connection, campaign_id, step, TouchState.ACCEPTED, recipient_id=add_recipient(connection))
    http = await console.client(AccessRole.SEND)
    page = (await http.get("/launch/spring")).text
    assert "It was launched before" in page
    assert "Who gets it" not in page
    assert "When would it be over?" not in page


async def test_before_the_import_the_messages_are_those_of_the_file(console: Console, project: CampaignProject) -> None:
    rows = ["email,tz,name", *(f"new{n}@example.com,UTC,New {n}" for n in range(5)), "not an address,UTC,Nobody"]
    (project.folder / "coming.csv").write_text("\n".join(rows), encoding="utf-8")
    project.apply(FROM_FILE.replace("name: spring", "name: autumn"))
    http = await console.client(AccessRole.SEND)
    page = await http.get("/launch/autumn")
    shown = re.findall(r'<p class="letter-to">([^<]+)</p>', page.text)
    assert shown == [
        "new0@example.com, variant short",
        "new2@example.com, variant plain",
        "new4@example.com, variant short",
    ]
    frames = [unescape(src) for src in re.findall(r'<iframe sandbox="" src="([^"]+)"', page.text)]
    assert "<p>Hello New 2</p>" in (await http.get(frames[1])).text
    proof = await http.post("/launch/autumn/proof", data={"to": "me@example.com", "step": "hello"})
    assert "is empty" not in proof.text
    assert "new0@example.com" in proof.text, "a proof is rendered for a recipient of the file, too"


async def test_an_empty_audience_names_itself_in_what_to_do(console: Console, project: CampaignProject) -> None:
    project.apply(HTML_CAMPAIGN.replace("name: people", "name: nobody-yet").replace("name: spring", "name: autumn"))
    http = await console.client(AccessRole.SEND)
    page = (await http.get("/launch/autumn")).text
    assert "<code>postroad audience import nobody-yet FILE</code>" in page


async def test_a_launch_that_waits_is_on_the_first_page_and_no_draft(console: Console) -> None:
    add_request(console)
    http = await console.client(AccessRole.SEND)
    assert re.search(r'To approve</dt>\s*<dd><a href="/launch">1</a>', (await http.get("/")).text)
    page = (await http.get("/launch")).text
    assert "Look and decide" in page
    assert "Check and launch" not in page
    viewer = await console.client(AccessRole.VIEW)
    assert re.search(r"To approve</dt>\s*<dd>1<", (await viewer.get("/")).text)


async def test_what_was_decided_cannot_be_approved_again(console: Console) -> None:
    add_request(console, ApprovalState.APPROVED, by="ada")
    http = await console.client(AccessRole.SEND)
    page = await http.get("/launch/spring/approve")
    assert page.status_code == 409
    assert "no launch of campaign spring waits for an approval" in page.text
    assert "ada approved it" in (await http.get("/launch/spring")).text
    assert "To approve" not in (await http.get("/")).text
