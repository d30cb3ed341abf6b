"""Draws the variant of a step that each recipient gets. Pure.

A draw is a hash of campaign, step and recipient, so it has the same result wherever and whenever it is made. It is
independent of the order in which recipients come, and of everything that is known of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from hashlib import blake2b
from typing import Any

PERCENT = 100
_DRAW, _ORDER = b"variant", b"test order"
_BITS = 64


class Criterion(StrEnum):
    """What decides between variants: the share of the recipients who do this."""

    GOAL = "goal"
    REPLIED = "replied"


@dataclass(frozen=True, kw_only=True)
class WinnerRule:
    """How the winner of a step is decided.

    ``after``: the decision is made at most so long after the first message of the test is due. ``at_most``: largest
    share of the recipients who get a variant before the decision, in percent.
    """

    by: Criterion
    after: timedelta
    at_most: int


@dataclass(frozen=True, kw_only=True)
class VariantSplit:
    """The variants of one step, with their shares in percent, which add up to 100. ``winner`` None: none is decided."""

    campaign_id: int
    step: str
    shares: Mapping[str, int]
    winner: WinnerRule | None = None

    def draw(self, recipient_id: int) -> str:
        """Return the variant of a recipient."""
        place = Fraction(self._hash(_DRAW, recipient_id) * PERCENT, 1 << _BITS)
        names = list(self.shares)
        for name in names[:-1]:
            place -= self.shares[name]
            if place < 0:
                return name
        return names[-1]

    def choose_testers(self, recipient_ids: Sequence[int], *, planned: int, tested: int) -> list[int]:
        """Choose the recipients of a batch who get a variant before the decision, at random by a hash.

        Args:
            recipient_ids: Recipients of the batch.
            planned: Recipients of the step in earlier batches.
            tested: Those of them who were chosen.

        Returns:
            So many that all chosen ones are at most the share of the rule.
        """
        if self.winner is None:
            return list(recipient_ids)
        quota = (planned + len(recipient_ids)) * self.winner.at_most // PERCENT - tested
        ordered = sorted(recipient_ids, key=lambda id_: (self._hash(_ORDER, id_), id_))
        return ordered[: max(quota, 0)]

    def _hash(self, purpose: bytes, recipient_id: int) -> int:
        key = f"{self.campaign_id}\0{self.step}\0{recipient_id}".encode()
        return int.from_bytes(blake2b(key, digest_size=_BITS // 8, person=purpose).digest())


def split_of(campaign_id: int, step: str, settings: Mapping[str, Any]) -> VariantSplit | None:
    """Return the variants of a step.

    Args:
        campaign_id: Its campaign.
        step: Its name.
        settings: Its settings, as the step table stores them.

    Returns:
        The variants. None: the step has none.
    """
    variants = settings.get("variants")
    if not variants:
        return None
    winner = settings.get("winner")
    return VariantSplit(
        campaign_id=campaign_id,
        step=step,
        shares={variant["name"]: variant["share"] for variant in variants},
        winner=WinnerRule(
            by=Criterion(winner["by"]),
            after=timedelta(milliseconds=winner["after_ms"]),
            at_most=winner["at_most"],
        )
        if winner is not None
        else None,
    )


def variant_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the variants of a step, in their order; () without variants."""
    return tuple(variant["name"] for variant in settings.get("variants", ()))


CONTENT = ("subject", "text", "html", "mjml")
"""What a variant may replace of its step."""


def content_of(settings: Mapping[str, Any], variant: str | None) -> dict[str, Any]:
    """Return the settings of a step with the content of a variant.

    Args:
        settings: The settings, as the step table stores them.
        variant: Name of the variant. None: the step itself.

    Returns:
        Settings without variants.

    Raises:
        KeyError: The step has no such variant.
    """
    content = {name: value for name, value in settings.items() if name not in ("variants", "winner")}
    if variant is None:
        return content
    own = {one["name"]: one for one in settings.get("variants", ())}[variant]
    if own.get("html") is not None or own.get("mjml") is not None:  # HTML in either form replaces both.
        content = {**content, "html": None, "mjml": None}
    content |= {name: own[name] for name in CONTENT if own.get(name) is not None}
    return content if content.get("mjml") is not None else {k: v for k, v in content.items() if k != "mjml"}
