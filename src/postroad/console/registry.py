"""All screens of the console, in the order of the navigation. Add a screen by adding its module here."""

from __future__ import annotations

from postroad.console.screen import Screen
from postroad.console.screens import (
    access,
    audit,
    campaign_acts,
    campaign_forecast,
    campaign_moved,
    campaign_rollout,
    campaign_variants,
    campaigns,
    domains,
    launch,
    launch_approval,
    message_acts,
    now,
    people,
    people_consents,
    receivers,
    returned,
    sign_in,
    undecided,
    warmup,
    webhook_acts,
    webhooks,
    why,
)

SCREENS: tuple[Screen, ...] = (
    now.screen,
    why.screen,
    campaigns.screen,
    launch.screen,
    undecided.screen,
    returned.screen,
    receivers.screen,
    warmup.screen,
    domains.screen,
    webhooks.screen,
    people.screen,
    audit.screen,
    access.screen,
    sign_in.screen,
)

# These add routes to the screens of campaigns, launches, messages, people and webhooks.
_WITH_ROUTES = (
    campaign_acts,
    campaign_forecast,
    campaign_moved,
    campaign_rollout,
    campaign_variants,
    launch_approval,
    message_acts,
    people_consents,
    webhook_acts,
)
