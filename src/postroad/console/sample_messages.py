"""Chooses recipients of a campaign, and renders a step for them as it would leave."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from postroad.app.context import AppContext
from postroad.campaign.preview import Preview, PreviewRequest, email_steps, preview
from postroad.campaign.segment import Segment, SegmentRow, segment_pages
from postroad.errors import PostroadError
from postroad.mail.dkim_keys import load_signers
from postroad.store.campaign import find_campaign
from postroad.store.engine import read

SAMPLES: Final = 3
PAGES: Final = 5
"""So many pages of the audience are searched for recipients who meet the condition."""


@dataclass(frozen=True, kw_only=True)
class MessageSample:
    """A message to one recipient. ``problem``: why it cannot be rendered."""

    address: str
    subject: str = ""
    size: int = 0
    problem: PostroadError | None = None


@dataclass(frozen=True, kw_only=True)
class MessageSamples:
    """Messages of one step. ``steps``: names of all email steps."""

    steps: Sequence[str]
    step: str
    messages: Sequence[MessageSample]


def message_samples(context: AppContext, name: str, step: str | None) -> MessageSamples:
    """Render a step for three recipients who would get it: the first, one of the middle and the last of some thousand.

    Args:
        context: The open parts.
        name: Name of the campaign.
        step: Name of an email step. None: the first one.

    Returns:
        The messages; none if the audience is empty.

    Raises:
        StateError: There is no such campaign or step.
    """
    with read(context.engine) as connection:
        campaign = find_campaign(connection, name)
        steps = [each.name for each in email_steps(connection, campaign, None)]
        chosen = email_steps(connection, campaign, step)[0].name
    segment = Segment.of(campaign, context.clock.now())
    met: list[SegmentRow] = []
    for page in islice(segment_pages(context.engine, segment), PAGES):
        met += [row for row in page if row.met and not row.suppressed]
        if len(met) >= SAMPLES:
            break
    places = sorted({0, len(met) // 2, len(met) - 1}) if met else []
    messages = [_sample(context, name, chosen, met[place].address) for place in places]
    return MessageSamples(steps=steps, step=chosen, messages=messages)


def _sample(context: AppContext, name: str, step: str, address: str) -> MessageSample:
    try:
        seen = render_sample(context, name, step, address)
    except PostroadError as error:
        return MessageSample(address=address, problem=error)
    return MessageSample(address=address, subject=seen.subject, size=len(seen.content))


def render_sample(context: AppContext, name: str, step: str | None, address: str | None) -> Preview:
    """Render a step for a member of the audience. Its unsubscribe link has no effect.

    Args:
        context: The open parts.
        name: Name of the campaign.
        step: Name of an email step. None: the first one.
        address: The member. None: the first one.

    Returns:
        The message.

    Raises:
        StateError: The campaign, the step or the recipient does not exist.
        DataError: The recipient does not have a merge field of the step.
        ConfigError: A template or a key cannot be used.
    """
    dkim = load_signers(context.settings, os.environ)
    request = PreviewRequest(campaign=name, step=step, address=address)
    return preview(context.engine, context.settings, context.signer, dkim, request, now=context.clock.now())
