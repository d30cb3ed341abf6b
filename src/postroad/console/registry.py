"""All screens of the console, in the order of the navigation. Add a screen by adding its module here."""

from __future__ import annotations

from postroad.console.screen import Screen
from postroad.console.screens import (
    access,
    audit,
    campaign_acts,
    campaign_forecast,
    campaigns,
    launch,
    now,
    people,
    sign_in,
    why,
)

SCREENS: tuple[Screen, ...] = (
    now.screen,
    why.screen,
    campaigns.screen,
    launch.screen,
    people.screen,
    audit.screen,
    access.screen,
    sign_in.screen,
)

# These add routes to the screen of campaigns.
_WITH_ROUTES = (campaign_acts, campaign_forecast)
