"""All screens of the console, in the order of the navigation. Add a screen by adding its module here."""

from __future__ import annotations

from postroad.console.screen import Screen
from postroad.console.screens import (
    access,
    audit,
    campaign_acts,
    campaign_forecast,
    campaign_variants,
    campaigns,
    launch,
    message_acts,
    now,
    people,
    returned,
    sign_in,
    undecided,
    why,
)

SCREENS: tuple[Screen, ...] = (
    now.screen,
    why.screen,
    campaigns.screen,
    launch.screen,
    undecided.screen,
    returned.screen,
    people.screen,
    audit.screen,
    access.screen,
    sign_in.screen,
)

# These add routes to the screens of campaigns and of messages.
_WITH_ROUTES = (campaign_acts, campaign_forecast, campaign_variants, message_acts)
