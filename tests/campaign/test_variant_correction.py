"""Recalls list who got which variant, and a correction goes to those who got one of them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import launch
from postroad.errors import ConfigError, StateError
from postroad.operations.recall import has_variants, reached_recipients
from postroad.store.engine import read, write
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

VARIANTS = CAMPAIGN.rstrip() + "\n    variants: [{name: a, subject: A, share: 50}, {name: b, share: 50}]\n"
CORRECTION = """
name: spring-correction
sender: news
corrects: {campaign: spring, step: hello, variant: VARIANT}
steps:
  - {email: sorry, subject: Sorry, text: hello.txt}
"""


def sent(project: CampaignProject) -> dict[str, str]:
    """Launch a campaign with variants whose messages are all accepted. Return the variant of each address."""
    project.fill(f"p{n}@example.com,,Name{n}" for n in range(20))
    project.apply(VARIANTS)
    launch(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'accepted', settled_at = due_at"))
    found = {one.address: one.variant or "" for one in reached_recipients(project.engine, "spring", None)}
    assert set(found.values()) == {"a", "b"}
    assert has_variants(project.engine, "spring")
    return found


def test_a_correction_of_a_variant_goes_to_those_who_got_it(project: CampaignProject) -> None:
    variants = sent(project)
    for name in ("a", "b"):
        campaign = project.apply(CORRECTION.replace("VARIANT", name))
        members = sa.text(
            "SELECT recipient.address FROM audience_member JOIN recipient ON recipient.id = recipient_id "
            "WHERE audience_id = :id"
        )
        with read(project.engine) as connection:
            reached = set(connection.execute(members, {"id": campaign.audience_id}).scalars())
        assert reached == {address for address, variant in variants.items() if variant == name}
        assert campaign.corrects is not None
        assert campaign.corrects["variant"] == name


@pytest.mark.parametrize(
    ("corrects", "says"),
    [
        ("{campaign: spring, step: hello, variant: c}", "variant of step hello"),
        ("{campaign: spring, variant: a}", "without its step"),
    ],
)
def test_a_variant_that_does_not_exist_is_refused(project: CampaignProject, corrects: str, says: str) -> None:
    sent(project)
    text = CORRECTION.replace("{campaign: spring, step: hello, variant: VARIANT}", corrects)
    with pytest.raises((ConfigError, StateError), match=says) as found:
        project.apply(text)
    assert "corrects.variant" in str(found.value)
