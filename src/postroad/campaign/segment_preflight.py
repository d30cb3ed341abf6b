"""Preflight of a segment: how many recipients it has, and who lacks the fields that its condition names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa

from postroad.campaign.file_trial import FileTrial
from postroad.campaign.finding import PreflightCode, PreflightFinding, campaign_finding
from postroad.campaign.segment import Segment, SegmentCount, count_members, count_segment
from postroad.field_types import FieldType
from postroad.printable import counted
from postroad.segment.tree import RecipientCondition


class CountedSegment(NamedTuple):
    """Recipients of a segment in the database, but for those whom a file changes first; and findings."""

    recipients: int
    findings: tuple[PreflightFinding, ...] = ()


def count_for_preflight(engine: sa.Engine, segment: Segment, coming: FileTrial, stays_open: bool) -> CountedSegment:
    """Count the recipients of a segment.

    Args:
        engine: The database.
        segment: The segment.
        coming: Trial of the file that the launch imports first.
        stays_open: Recipients enter after the launch too, so the segment may be empty.

    Returns:
        The count, with findings. Without a condition all members count.
    """
    if segment.condition is None:
        return CountedSegment(count_members(engine, segment.audience_id, coming.before))
    count = count_segment(engine, segment, excluded=coming.known)
    found = _findings(segment.condition, count, coming)
    may_be_empty = PreflightCode.SEGMENT_EMPTY.word if stays_open else ""
    return CountedSegment(count.matching, tuple(finding for finding in found if finding.code != may_be_empty))


def _findings(condition: RecipientCondition, count: SegmentCount, coming: FileTrial) -> Iterator[PreflightFinding]:
    members = count.members + len(coming.known)
    if members and not count.matching + coming.new:
        yield campaign_finding(
            PreflightCode.SEGMENT_EMPTY,
            f"none of the {counted(members, 'member')} of its audience meets the condition: {condition.text}",
            "`postroad segment explain ADDRESS --campaign NAME` shows why a recipient does not.",
        )
    for name, kind in condition.fields.items():
        lacking = count.missing[name] + coming.missing[name]
        if lacking:
            value = "no value" if kind is FieldType.TEXT else f"no {kind} value"
            yield campaign_finding(
                PreflightCode.SEGMENT_MISSING,
                f"{lacking:,} of {counted(members, 'member')} of the audience "
                f"{'has' if lacking == 1 else 'have'} {value} in the field {name}, which the condition names: every "
                "comparison with it is false for them",
                f"Import the field for them, or decide about them with {name} IS NULL.",
                recipients=lacking,
            )
