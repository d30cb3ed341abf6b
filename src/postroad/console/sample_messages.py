"""Chooses recipients of a campaign, and renders a step for them as it would leave."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from postroad.app.context import AppContext
from postroad.campaign.chosen_member import coming_members
from postroad.campaign.preview import Preview, PreviewRequest, email_steps, preview, require_variant
from postroad.campaign.segment import Segment, segment_pages
from postroad.errors import PostroadError
from postroad.mail.dkim_keys import load_signers
from postroad.store.campaign import Campaign, find_campaign
from postroad.store.engine import read
from postroad.store.variant_split import variant_names

SAMPLES: Final = 3
PAGES: Final = 5
"""So many pages of the audience are searched for recipients who meet the condition."""


@dataclass(frozen=True, kw_only=True)
class MessageSample:
    """A message to one recipient.

    ``variant`` None: the step has no variants. ``problem``: why it cannot be rendered.
    """

    address: str
    variant: str | None = None
    subject: str = ""
    size: int = 0
    problem: PostroadError | None = None


@dataclass(frozen=True, kw_only=True)
class MessageSamples:
    """Messages of one step.

    ``variants``: names of those of the step. ``variant``: the one of all messages; None: each has its own.
    ``steps``: names of all email steps. ``coming``: whether their recipients are of the file that the launch imports.
    """

    steps: Sequence[str]
    step: str
    variants: Sequence[str]
    variant: str | None
    messages: Sequence[MessageSample]
    coming: bool = False


def message_samples(context: AppContext, name: str, step: str | None, variant: str | None = None) -> MessageSamples:
    """Render a step for three recipients who would get it: the first, one of the middle and the last of some thousand.

    Before the first import they are recipients of the file that the launch imports. Which variant each of them gets is
    not known then, so each message has another one.

    Args:
        context: The open parts.
        name: Name of the campaign.
        step: Name of an email step. None: the first one.
        variant: Name of a variant of the step. None: that of each recipient.

    Returns:
        The messages; none if the audience is empty.

    Raises:
        StateError: There is no such campaign, step or variant.
    """
    with read(context.engine) as connection:
        campaign = find_campaign(connection, name)
        steps = [each.name for each in email_steps(connection, campaign, None)]
        chosen = email_steps(connection, campaign, step)[0]
    require_variant(chosen, variant)
    found: list[str] = _members(context, campaign)
    names, variants = variant_names(chosen.settings), [variant]
    coming = not found
    if coming:
        found = [
            each.address for each in coming_members(context.engine, context.settings, campaign, context.clock.now())
        ]
        variants = list(names) if names and variant is None else variants
    places = sorted({0, len(found) // 2, len(found) - 1}) if found else []
    samples = [(found[place], variants[number % len(variants)]) for number, place in enumerate(places)]
    messages = [_sample(context, name, chosen.name, address, its) for address, its in samples]
    return MessageSamples(
        steps=steps,
        step=chosen.name,
        variants=names,
        variant=variant,
        messages=messages,
        coming=coming and bool(found),
    )


def _members(context: AppContext, campaign: Campaign) -> list[str]:
    """Return the addresses of some thousand members who would get the campaign."""
    found: list[str] = []
    for page in islice(segment_pages(context.engine, Segment.of(campaign, context.clock.now())), PAGES):
        found += [row.address for row in page if row.met and not row.suppressed]
        if len(found) >= SAMPLES:
            break
    return found


def _sample(context: AppContext, name: str, step: str, address: str, variant: str | None) -> MessageSample:
    try:
        seen = render_sample(context, PreviewRequest(campaign=name, step=step, address=address, variant=variant))
    except PostroadError as error:
        return MessageSample(address=address, variant=variant, problem=error)
    return MessageSample(address=address, variant=seen.variant, subject=seen.subject, size=len(seen.content))


def render_sample(context: AppContext, request: PreviewRequest) -> Preview:
    """Render a step for a member of the audience. Its unsubscribe link has no effect.

    Args:
        context: The open parts.
        request: Campaign, step, member and variant.

    Returns:
        The message.

    Raises:
        StateError: The campaign, the step, the variant or the recipient does not exist.
        DataError: The recipient does not have a merge field of the step.
        ConfigError: A template or a key cannot be used.
    """
    dkim = load_signers(context.settings, os.environ)
    return preview(context.engine, context.settings, context.signer, dkim, request, now=context.clock.now())
