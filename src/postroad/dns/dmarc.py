"""Which DMARC policy holds for a domain, and what its organisation is: the tree walk of RFC 9989 §4.10."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postroad.dns.dmarc_record import DmarcRecord, PublicSuffix, is_dmarc, parse_dmarc
from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.resolver import Resolver
from postroad.dns.tags import RecordError, texts, unanswered_reason

MAX_LABELS = 8
"""From a longer name the walk jumps to its last seven labels, so that it takes eight questions at the most."""


class NoAnswerError(Exception):
    """DNS said nothing about a name that decides. Says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """What one name of the walk has. ``text`` and ``record``: of the one record there; ``several`` count as none."""

    domain: str
    text: str = ""
    record: DmarcRecord | None = None
    several: int = 0
    wrong: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """A walk from a domain up. ``organisation``: domains that share it are aligned."""

    domain: str
    stops: tuple[Stop, ...]
    """From the domain up."""
    organisation: str
    policy: Stop | None
    """Where the policy for the domain was found: there, at its organisation, or at the public suffix above."""


async def walk(resolver: Resolver, domain: str) -> Walk:
    """Walk the tree from a domain in ASCII. Raises NoAnswerError."""
    domain = domain.lower().rstrip(".")
    stops: list[Stop] = []
    for name in _names(domain):
        stop = _stop(name, await resolver.lookup(f"_dmarc.{name}", "TXT"))
        stops.append(stop)
        if stop.record is not None and _ends_walk(stop.record.public_suffix, at_start=name == domain):
            break
    with_record = [stop for stop in stops if stop.record is not None]
    organisation = _organisation(domain, with_record)
    by_name = {stop.domain: stop for stop in with_record}
    # §4.10.1: the domain's own; else its organisation's; else that of the public suffix above it.
    policy = by_name.get(domain) or by_name.get(organisation) or by_name.get(organisation.partition(".")[2])
    return Walk(domain=domain, stops=tuple(stops), organisation=organisation, policy=policy)


async def aligned(resolver: Resolver, first: str, second: str, *, strict: bool) -> bool:
    """Whether two domains are the same, or, where not strict, of one organisation (§4.4). Raises NoAnswerError."""
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


def _stop(domain: str, answer: Lookup) -> Stop:
    if answer.status is LookupStatus.NO_ANSWER:
        raise NoAnswerError(unanswered_reason(answer))
    ours = [text for text in texts(answer) if is_dmarc(text)]
    if len(ours) != 1:
        return Stop(domain=domain, several=len(ours))
    try:
        return Stop(domain=domain, text=ours[0], record=parse_dmarc(ours[0]))
    except RecordError as error:
        return Stop(domain=domain, text=ours[0], wrong=str(error))


def _organisation(domain: str, stops: Sequence[Stop]) -> str:
    """Return the organisational domain (§4.10.2), from the stops with a record, the lowest first."""
    for stop in stops:
        assert stop.record is not None  # noqa: S101  (only such are handed over)
        match stop.record.public_suffix:
            case PublicSuffix.NO:
                return stop.domain
            case PublicSuffix.YES if stop.domain != domain:
                labels = domain.split(".")
                return ".".join(labels[-(stop.domain.count(".") + 2) :])
            case _:
                continue
    return min((stop.domain for stop in stops), key=lambda name: name.count("."), default=domain)
