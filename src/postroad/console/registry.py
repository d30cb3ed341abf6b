"""All screens of the console, in the order of the navigation. Add a screen by adding its module here."""

from __future__ import annotations

from postroad.console.screen import Screen
from postroad.console.screens import access, audit, now, people, sign_in

SCREENS: tuple[Screen, ...] = (
    now.screen,
    people.screen,
    audit.screen,
    access.screen,
    sign_in.screen,
)
