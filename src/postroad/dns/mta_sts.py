"""MTA-STS (RFC 8461): a domain publishes by HTTPS the names of its mail hosts, and that they require TLS."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import httpx

from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.public_address import Network, may_connect
from postroad.dns.resolver import Resolver
from postroad.dns.tags import texts
from postroad.fetch import BoundedClient, FetchError, HttpAnswer, fetch

MAX_POLICY_BYTES = 65_536
"""RFC 8461 §3.3: a sender may limit the size of a policy."""
MAX_AGE_S = 31_557_600
"""RFC 8461 §3.2: about a year."""
FETCH_SECONDS = 60.0
"""RFC 8461 §3.3."""
MAX_ADDRESSES = 4
"""Maximum number of addresses of the policy's host to try."""

_RECORD = re.compile(r"v=STSv1[ \t]*;[ \t]*id=(?P<id>[A-Za-z0-9]{1,32})[ \t]*(?:;.*)?")
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*")


class StsMode(StrEnum):
    """How senders handle a mail host that does not satisfy the policy (RFC 8461 §5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class MtaStsPolicy:
    """The policy of a domain (RFC 8461 §3.2)."""

    mode: StsMode
    hosts: tuple[str, ...]
    max_age_s: int

    def covers(self, host: str) -> bool:
        """Return whether a mail host matches the policy. A star matches one label (RFC 8461 §4.1)."""
        host = host.lower()
        return any(
            host.partition(".")[2] == pattern[2:] if pattern.startswith("*.") else host == pattern
            for pattern in self.hosts
        )


class PolicyError(Exception):
    """A policy could not be fetched, or is invalid."""


async def find_policy_id(resolver: Resolver, domain: str) -> tuple[LookupStatus, str | None]:
    """Look up the policy id that a domain publishes. Return the status of the lookup, and the id if there is one."""
    answer = await resolver.lookup(f"_mta-sts.{domain}", "TXT")
    return answer.status, _policy_id(answer)


def _policy_id(answer: Lookup) -> str | None:
    # RFC 8461 §3.1: the strings of a record are joined. Other records are ignored. Two records count as no record.
    ours = [text for text in texts(answer) if re.match(r"v=STSv1[ \t]*;", text)]
    if len(ours) != 1:
        return None
    match = _RECORD.fullmatch(ours[0].rstrip())
    return match["id"] if match else None


def parse_policy(text: str) -> MtaStsPolicy:
    """Parse a policy (RFC 8461 §3.2). Ignores unknown keys. Raises PolicyError for an invalid policy."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), []).append(value.strip())
    if values.get("version", [""])[0] != "STSv1":
        raise PolicyError("its version is not STSv1")
    try:
        mode = StsMode(values.get("mode", [""])[0])
    except ValueError:
        raise PolicyError(f"its mode is {values.get('mode', ['missing'])[0]!r}") from None
    max_age = values.get("max_age", [""])[0]
    if not (max_age.isascii() and max_age.isdecimal() and len(max_age) <= 10):
        raise PolicyError(f"its max_age is {max_age or 'missing'!r}")
    hosts = tuple(host.lower().rstrip(".") for host in values.get("mx", ()))
    if any(_HOST.fullmatch(host) is None for host in hosts):
        raise PolicyError("one of its mail hosts is not a valid name")
    if not hosts and mode is not StsMode.NONE:
        raise PolicyError("it names no mail host")
    return MtaStsPolicy(mode=mode, hosts=hosts, max_age_s=min(int(max_age), MAX_AGE_S))


async def fetch_policy(
    resolver: Resolver,
    domain: str,
    trust: ssl.SSLContext,
    *,
    port: int = 443,
    allowed: Sequence[Network] = (),
    within_s: float = FETCH_SECONDS,
) -> MtaStsPolicy:
    """Fetch the policy of a domain.

    Args:
        resolver: Looks up the addresses of the policy's host.
        domain: The domain.
        trust: Trusted authorities for the host's certificate.
        port: Port of the host.
        allowed: Networks that are allowed although they are not public.
        within_s: Deadline for all addresses together, in seconds.

    Returns:
        The policy.

    Raises:
        PolicyError: There is no policy, it cannot be fetched, or it is invalid.
    """
    host = f"mta-sts.{domain}"
    addresses = (await _addresses(resolver, host, allowed))[:MAX_ADDRESSES]
    why = ""
    for address in addresses:
        netloc = f"[{address}]" if ":" in address else address
        try:
            async with BoundedClient(verify=trust, trust_env=False) as client:
                answer = await fetch(
                    client,
                    f"https://{netloc}:{port}/.well-known/mta-sts.txt",
                    within_s=within_s / len(addresses),
                    max_bytes=MAX_POLICY_BYTES,
                    headers={"Host": host},
                    extensions={"sni_hostname": host},
                )
        except FetchError as error:
            why = str(error)
        else:
            return _policy(answer, host)
    raise PolicyError(f"https://{host} cannot be reached: {why}")


async def _addresses(resolver: Resolver, host: str, allowed: Sequence[Network]) -> Sequence[str]:
    lookups = await resolver.addresses(host)
    found = [address for lookup in lookups for address in lookup.addresses]
    if not found:
        raise PolicyError(f"{host} has no address ({', '.join(lookup.status for lookup in lookups)})")
    usable = [address for address in found if may_connect(address, allowed)]
    if not usable:
        raise PolicyError(f"{host} has no public address: {', '.join(found[:3])}")
    return usable


def _policy(answer: HttpAnswer, host: str) -> MtaStsPolicy:
    if answer.status != httpx.codes.OK:
        raise PolicyError(f"https://{host} answers {answer.status}")  # RFC 8461 §3.3: no redirects
    if answer.media_type != "text/plain":
        raise PolicyError(f"https://{host} answers {answer.media_type[:80] or 'no media type'}, and not text/plain")
    return parse_policy(answer.body.decode("utf-8", "replace"))
