"""Launch: what a campaign would do, three of its messages, a proof, the approval, and the run of Prefect."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import sqlalchemy as sa
from fastapi import Query, Response

from postroad.app.approval import find_pending, launch_needs_approval, list_approvals
from postroad.app.preflight import preflight_with_file
from postroad.app.proof import ProofRequest, make_proofs, send_proofs
from postroad.campaign.approval import campaign_digest
from postroad.campaign.entry import CampaignEntry
from postroad.campaign.launch_forecast import Forecast as LaunchForecast
from postroad.campaign.launch_forecast import forecast as forecast_launch
from postroad.campaign.planned_variants import planned_variants
from postroad.campaign.preview import Preview, PreviewRequest
from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import CAMPAIGN_TONES, campaign_url
from postroad.console.confirm import CHANGED, Confirmation, Extent, FieldKind, FormField
from postroad.console.message_frame import FRAME_HEADERS, frame_document
from postroad.console.page_url import page_url
from postroad.console.plain_markdown import plain_text
from postroad.console.sample_messages import MessageSamples, message_samples, render_sample
from postroad.console.screen import NavSection, Screen
from postroad.console.screens.campaign_forecast import forecast_values
from postroad.console.visit import Visit
from postroad.errors import DataError, PostroadError
from postroad.forecast.coming import coming_recipients
from postroad.local.campaign_launch import require_startable, start_launch
from postroad.local.live_launches import shown_launches
from postroad.local.prefect_api import open_prefect
from postroad.operations.campaign_runs import require_launchable
from postroad.read_model.campaigns import campaign_lines
from postroad.settings import AccessRole
from postroad.store.approval import ApprovalState
from postroad.store.campaign import CampaignState, find_campaign
from postroad.store.recipient import audience_name

screen = Screen(name="launch", title="Launch", path="/launch", section=NavSection.MAIL, role=AccessRole.SEND)

APPROVALS: Final = 50
LAUNCHABLE: Final = CampaignState.DRAFT
ALREADY: Final = "It is being launched by this run."

Step = Annotated[str | None, Query(max_length=200)]
Address = Annotated[str | None, Query(max_length=320)]
Variant = Annotated[str | None, Query(max_length=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


def launch_url(name: str, *path: str, **query: object) -> str:
    """Return the URL of a campaign's launch page, or of a page below it."""
    return page_url("launch", name, *path, **query)


@screen.get("/launch", role=AccessRole.SEND)
async def choose(visit: CurrentVisit, after: Cursor = None) -> Response:
    """List the campaigns that can be launched, and the requests that wait for an approval."""
    asked = await list_approvals(visit.parts.context, None, APPROVALS)
    now = visit.parts.now()
    waiting = [each for each in asked if each.approval.state is ApprovalState.OPEN and not each.approval.expired(now)]
    waits = {each.campaign for each in waiting}
    page = await visit.read(campaign_lines, state=LAUNCHABLE, after=after)
    return visit.page(
        "launch.html",
        drafts=[line for line in page.rows if line.name not in waits],
        next=page.next,
        first=after is None,
        waiting=waiting,
        launches=await shown_launches(visit.parts.context),
        url_of=launch_url,
    )


@dataclass(frozen=True, kw_only=True)
class LaunchView:
    """What a launch now would do. ``problem``: why that is not known."""

    forecast: LaunchForecast | None = None
    file: str | None = None
    needs_approval: bool = False
    problem: PostroadError | None = None


async def _look(visit: Visit, name: str) -> LaunchView:
    context = visit.parts.context
    try:
        trial = await visit.run(coming_recipients, context, name)
        seen = await visit.run(forecast_launch, context.engine, name, visit.parts.now(), trial, context.calendar)
        needed = await launch_needs_approval(context, name, coming=trial)
    except PostroadError as error:
        return LaunchView(problem=error)
    return LaunchView(forecast=seen, file="the launch imports its file first" if trial else None, needs_approval=needed)


@screen.get("/launch/{campaign}", role=AccessRole.SEND)
async def launch(visit: CurrentVisit, campaign: str, step: Step = None, variant: Variant = None) -> Response:
    """Show what a launch of this campaign would do."""
    row = await visit.read(find_campaign, campaign)
    samples = await visit.run(message_samples, visit.parts.context, campaign, step, variant)
    pending = await find_pending(visit.parts.context, campaign)
    return visit.page(
        "launch_campaign.html",
        campaign=campaign,
        audience=await visit.read(audience_name, row.audience_id),
        stays_open=CampaignEntry.of(row).stays_open,
        state=row.state,
        tone=CAMPAIGN_TONES[row.state],
        launchable=row.state is LAUNCHABLE,
        launching=(await shown_launches(visit.parts.context)).get(campaign) if row.state is LAUNCHABLE else None,
        view=await _look(visit, campaign),
        samples=samples,
        variants=await visit.read(planned_variants, campaign),
        pending=pending,
        asked_for=plain_text(pending.summary) if pending is not None else "",
        expired=pending is not None and pending.expired(visit.parts.now()),
        proof_fields=_proof_fields(samples, to=visit.user.user if "@" in visit.user.user else ""),
        url_of=launch_url,
        campaign_url=campaign_url,
    )


@screen.get("/launch/{campaign}/findings", role=AccessRole.SEND)
async def findings(visit: CurrentVisit, campaign: str) -> Response:
    """Return the findings of the preflight."""
    report, problem = None, None
    try:
        report, _ = await preflight_with_file(visit.parts.context, campaign)
    except PostroadError as error:
        problem = error
    template = "launch_findings.html" if _is_part(visit) else "launch_findings_page.html"
    return visit.page(template, campaign=campaign, report=report, problem=problem, url_of=launch_url)


@screen.get("/launch/{campaign}/forecast", role=AccessRole.SEND)
async def forecast(visit: CurrentVisit, campaign: str) -> Response:
    """Return the forecast."""
    template = "forecast_part.html" if _is_part(visit) else "campaign_forecast.html"
    return visit.page(template, **await forecast_values(visit, campaign))


def _is_part(visit: Visit) -> bool:
    """Return whether htmx asks for a part of a page."""
    return visit.request.headers.get("hx-request") == "true"


@screen.get("/launch/{campaign}/message", role=AccessRole.SEND)
async def message(
    visit: CurrentVisit, campaign: str, step: Step = None, address: Address = None, variant: Variant = None
) -> Response:
    """Return a message as a mail program would show it, for a frame without scripts and without the network."""
    request = PreviewRequest(campaign=campaign, step=step, address=address, variant=variant)
    try:
        seen = await visit.run(render_sample, visit.parts.context, request)
    except PostroadError as error:
        return Response(frame_document(None, error.message), media_type="text/html", headers=FRAME_HEADERS)
    return Response(frame_document(seen.html, seen.text), media_type="text/html", headers=FRAME_HEADERS)


@screen.get("/launch/{campaign}/source", role=AccessRole.SEND)
async def source(
    visit: CurrentVisit, campaign: str, step: Step = None, address: Address = None, variant: Variant = None
) -> Response:
    """Show the header and the text part of a message."""
    request = PreviewRequest(campaign=campaign, step=step, address=address, variant=variant)
    seen: Preview | None = None
    problem: PostroadError | None = None
    try:
        seen = await visit.run(render_sample, visit.parts.context, request)
    except DataError as error:
        problem = error
    return visit.page("launch_source.html", campaign=campaign, seen=seen, problem=problem, url_of=launch_url)


def _proof_fields(
    samples: MessageSamples, *, to: str = "", step: str = "", error: str = ""
) -> tuple[FormField, FormField]:
    choices = [("", "All steps"), *((name, name) for name in samples.steps)]
    return (
        FormField(name="to", label="To", value=to, error=error, hint="Your own address.", autocomplete="email"),
        FormField(name="step", label="Step", kind=FieldKind.CHOICE, value=step, choices=choices, required=False),
    )


@screen.post("/launch/{campaign}/proof", role=AccessRole.SEND)
async def proof(visit: CurrentVisit, campaign: str) -> Response:
    """Send a proof: each step to the address of the form, marked, outside the ledger."""
    form = await visit.form()
    to, step = form.text("to", max_characters=320), form.text("step", max_characters=200, required=False)
    samples = await visit.run(message_samples, visit.parts.context, campaign, None)
    problem: PostroadError | None = None
    sent = []
    if not form.errors:
        try:
            request = ProofRequest(campaign=campaign, to=(to,), step=step or None)
            proofs = await visit.run(make_proofs, visit.parts.context, request, os.environ)
            async with visit.act("campaign.proof", campaign, count=len(proofs), note=to, first=True):
                sent = await send_proofs(visit.parts.context, proofs)
        except PostroadError as error:
            problem = error
    return visit.page(
        "launch_proof.html",
        campaign=campaign,
        sent=sent,
        to=to,
        problem=problem,
        fields=_proof_fields(samples, to=to, step=step, error=form.errors.get("to", "")),
        url_of=launch_url,
        status=200 if sent else 422,
    )


@screen.get("/launch/{campaign}/start", role=AccessRole.SEND)
async def ask_start(visit: CurrentVisit, campaign: str) -> Response:
    """Show whom a launch reaches. While a run launches the campaign, lead to the page of this run."""
    await visit.run(require_launchable, visit.parts.engine, campaign)
    launching = (await shown_launches(visit.parts.context)).get(campaign)
    if launching is not None:
        return visit.redirect(launch_url(campaign, "run", str(launching.run_id)), ALREADY)
    return visit.confirm(await _starting(visit, campaign, await _look(visit, campaign)))


async def _starting(visit: Visit, campaign: str, view: LaunchView) -> Confirmation:
    extents, effects = [], []
    if view.forecast is not None:
        extents = [
            Extent(count=view.forecast.recipients, label="recipients get its first message"),
            Extent(count=view.forecast.suppressed, label="members are suppressed, and get nothing"),
        ]
    if view.needs_approval:
        effects.append("It needs an approval: no message leaves before a person has given it.")
    effects.append("The preflight runs once more. If it fails, nothing is sent.")
    return Confirmation(
        title=f"Launch the campaign {campaign}?",
        button="Ask for approval" if view.needs_approval else "Launch it",
        action=launch_url(campaign, "start"),
        back=launch_url(campaign),
        extents=extents,
        effects=effects,
        hidden={"shown": f"{await visit.read(_digest, campaign)}{' approval' * view.needs_approval}"},
    )


def _digest(connection: sa.Connection, name: str) -> str:
    return campaign_digest(connection, find_campaign(connection, name))


@screen.post("/launch/{campaign}/start", role=AccessRole.SEND)
async def start(visit: CurrentVisit, campaign: str) -> Response:
    """Start the Prefect run that launches the campaign that the page showed."""
    shown = (await visit.form()).raw("shown")
    await require_startable(visit.parts.context, campaign)
    view = await _look(visit, campaign)
    asked = await _starting(visit, campaign, view)
    if shown != asked.hidden["shown"]:
        return visit.confirm(asked, errors=[CHANGED], status=409)
    count = view.forecast.recipients if view.forecast is not None else None
    async with visit.act("campaign.launch", campaign, count=count, first=True):
        started = await start_launch(visit.parts.context, campaign, asked_by=visit.user.user)
    notice = "It waits for an approval." if started.needs_approval else "It is being launched."
    return visit.redirect(launch_url(campaign, "run", started.run_id), notice)


@screen.get("/launch/{campaign}/run/{run_id}", role=AccessRole.SEND)
async def run(visit: CurrentVisit, campaign: str, run_id: UUID) -> Response:
    """Follow a run."""
    return visit.page("launch_run.html", **await _run_values(visit, campaign, run_id))


@screen.get("/launch/{campaign}/run/{run_id}/live", role=AccessRole.SEND)
async def run_live(visit: CurrentVisit, campaign: str, run_id: UUID) -> Response:
    """Return the part of the page that changes."""
    return visit.page("launch_run_live.html", **await _run_values(visit, campaign, run_id))


async def _run_values(visit: Visit, campaign: str, run_id: UUID) -> dict[str, Any]:
    state, problem = None, None
    async with open_prefect(visit.parts.settings) as prefect:
        url = prefect.url_of(run_id)
        try:
            state = await prefect.state(run_id)
        except PostroadError as error:
            problem = error
    return {
        "campaign": campaign,
        "run_id": run_id,
        "state": state,
        "url": url,
        "problem": problem,
        "pending": await find_pending(visit.parts.context, campaign),
        "url_of": launch_url,
        "campaign_url": campaign_url,
    }
