"""Finds the DMARC policy and the organisational domain of a domain: the DNS tree walk of RFC 9989 §4.10."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postroad.dns.dmarc_record import DmarcRecord, PublicSuffix, is_dmarc, parse_dmarc
from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.resolver import Resolver
from postroad.dns.tags import RecordError, texts, unanswered_reason

MAX_LABELS = 8
"""From a longer name the walk jumps to its last seven labels, so that it takes at most eight queries."""


class NoAnswerError(Exception):
    """DNS gave no answer for a name on which the result depends. The message contains the name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkStep:
    """The result for one name of the walk.

    Attributes:
        domain: The name, without `_dmarc`.
        text: The text of the record, if there is exactly one.
        record: The parsed record.
        several: The number of records if it is not one. Several records count as no record.
        wrong: Why the record is invalid.
    """

    domain: str
    text: str = ""
    record: DmarcRecord | None = None
    several: int = 0
    wrong: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """A tree walk. ``organisation``: the organisational domain; domains with the same one are aligned."""

    domain: str
    steps: tuple[WalkStep, ...]
    """From the domain upwards."""
    organisation: str
    policy: WalkStep | None
    """The step with the policy of the domain: the domain, its organisational domain, or the public suffix above."""


async def walk(resolver: Resolver, domain: str) -> Walk:
    """Walk the tree from a domain in ASCII. Raises NoAnswerError if DNS gives no answer."""
    domain = domain.lower().rstrip(".")
    steps: list[WalkStep] = []
    for name in _names(domain):
        step = _step(name, await resolver.lookup(f"_dmarc.{name}", "TXT"))
        steps.append(step)
        if step.record is not None and _ends_walk(step.record.public_suffix, at_start=name == domain):
            break
    with_record = [step for step in steps if step.record is not None]
    organisation = _organisation(domain, with_record)
    by_name = {step.domain: step for step in with_record}
    # §4.10.1: the domain's own policy, else its organisational domain's, else that of the public suffix above it.
    policy = by_name.get(domain) or by_name.get(organisation) or by_name.get(organisation.partition(".")[2])
    return Walk(domain=domain, steps=tuple(steps), organisation=organisation, policy=policy)


async def aligned(resolver: Resolver, first: str, second: str, *, strict: bool) -> bool:
    """Return whether two domains are aligned (§4.4).

    Args:
        resolver: Looks up the organisational domains.
        first: A domain.
        second: Another domain.
        strict: Whether the domains must be equal. Otherwise their organisational domains must be.

    Returns:
        Whether they are aligned.

    Raises:
        NoAnswerError: DNS gives no answer.
    """
    first, second = first.lower().rstrip("."), second.lower().rstrip(".")
    if first == second or strict:
        return first == second
    return (await walk(resolver, first)).organisation == (await walk(resolver, second)).organisation


def _ends_walk(public_suffix: PublicSuffix, *, at_start: bool) -> bool:
    return public_suffix is PublicSuffix.NO or (public_suffix is PublicSuffix.YES and not at_start)


def _names(domain: str) -> Iterator[str]:
    labels = domain.split(".")
    yield domain
    rest = labels[1:] if len(labels) < MAX_LABELS else labels[-(MAX_LABELS - 1) :]
    for start in range(len(rest)):
        yield ".".join(rest[start:])


def _step(domain: str, answer: Lookup) -> WalkStep:
    if answer.status is LookupStatus.NO_ANSWER:
        raise NoAnswerError(unanswered_reason(answer))
    ours = [text for text in texts(answer) if is_dmarc(text)]
    if len(ours) != 1:
        return WalkStep(domain=domain, several=len(ours))
    try:
        return WalkStep(domain=domain, text=ours[0], record=parse_dmarc(ours[0]))
    except RecordError as error:
        return WalkStep(domain=domain, text=ours[0], wrong=str(error))


def _organisation(domain: str, steps: Sequence[WalkStep]) -> str:
    """Return the organisational domain (§4.10.2), from the steps with a record, the lowest first."""
    for step in steps:
        assert step.record is not None  # noqa: S101  (the caller passes only these)
        match step.record.public_suffix:
            case PublicSuffix.NO:
                return step.domain
            case PublicSuffix.YES if step.domain != domain:
                labels = domain.split(".")
                return ".".join(labels[-(step.domain.count(".") + 2) :])
            case _:
                continue
    return min((step.domain for step in steps), key=lambda name: name.count("."), default=domain)
