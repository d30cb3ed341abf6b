"""The settings decide which checks of a preflight use the network, and none of them prevents a launch."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from postroad.app.context import AppContext
from postroad.app.preflight import preflight
from postroad.campaign.preflight import PreflightReport
from postroad.clock import SystemClock
from tests.campaign.project import CAMPAIGN, CONFIG, CampaignProject
from tests.campaign.rspamd import rspamd
from tests.campaign.test_content import STORY, TEXT_FOOT
from tests.campaign.test_link_check import WebSite
from tests.dns.nameserver import Nameserver

ZONE = {"www.site.test": {"A": ["127.0.0.1"]}}


async def checked(
    project: CampaignProject, section: str, *, links: bool | None = None
) -> tuple[PreflightReport, WebSite]:
    """Preflight with this section [preflight] of a campaign with a dead link."""
    site = WebSite()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.replies["/gone"] = ("410 Gone", "")
    url = f"http://www.site.test:{server.sockets[0].getsockname()[1]}/gone"
    project.template("hello.txt", f"{STORY}\n\n{url}\n{TEXT_FOOT}")
    project.fill(["a@example.com,,Ada"])
    async with server, Nameserver(ZONE) as nameserver, AsyncExitStack() as stack:
        resolver = nameserver.settings().nameservers[0]
        project.configure(f'secret_key = "k"\n{CONFIG}\n[dns]\nnameservers = ["{resolver}"]\n[preflight]\n{section}')
        project.apply(CAMPAIGN)
        seen: list[tuple[str, int, int]] = []
        context = AppContext(project.settings, project.engine, SystemClock(), stack)
        report = await preflight(context, "spring", links=links, progress=lambda *it: seen.append(it))
        site.end()
    follows = "links = true" in section if links is None else links
    kinds = {"checking", *(["links"] if follows else []), *(["spam score"] if "rspamd" in section else [])}
    assert {what for what, _, _ in seen} == kinds
    assert all(done <= total for _, done, total in seen)
    assert report.ok
    assert report.contents == ()
    return report, site


def codes(report: PreflightReport) -> list[str]:
    return [finding.code for finding in report.findings]


async def test_without_a_setting_no_request_is_made(project: CampaignProject) -> None:
    report, site = await checked(project, "")
    assert (codes(report), site.requests) == (["link.http"], [])


@pytest.mark.parametrize("section", ["links = true", ""])
async def test_links_are_followed_by_the_setting_or_on_request(project: CampaignProject, section: str) -> None:
    more = f'{section}\nallowed_networks = ["127.0.0.0/8"]'
    report, site = await checked(project, more, links=None if section else True)
    assert codes(report) == ["link.http", "link.dead"]
    assert len(site.requests) == 1


async def test_a_request_overrides_the_setting(project: CampaignProject) -> None:
    report, site = await checked(project, "links = true", links=False)
    assert (codes(report), site.requests) == (["link.http"], [])


async def test_a_private_address_needs_permission(project: CampaignProject) -> None:
    report, site = await checked(project, "links = true")
    assert (codes(report), site.requests) == (["link.http", "link.unusable"], [])


async def test_a_named_server_scores_each_step(project: CampaignProject) -> None:
    with rspamd() as url:
        report, _ = await checked(project, f'rspamd = "{url}"')
    [finding] = [finding for finding in report.findings if finding.code.startswith("spam.")]
    assert (finding.code, finding.step) == ("spam.ok", "hello"), finding.what


async def test_a_server_that_is_down_does_not_prevent_the_launch(project: CampaignProject) -> None:
    report, _ = await checked(project, 'rspamd = "http://127.0.0.1:1"')
    assert codes(report) == ["link.http", "spam.unchecked"]
