"""A campaign that preflight checks."""

from __future__ import annotations

import sqlalchemy as sa
from pydantic import SecretStr

from postroad.campaign.preflight import Level, PreflightReport, check
from postroad.mail.token import TokenSigner
from postroad.store.campaign import Step
from postroad.store.engine import write
from tests.campaign.project import CAMPAIGN, TEXT, CampaignProject

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
