"""Follows the links of a campaign over HTTP, with limits of number, time and size.

Only links that are the same for every recipient are followed: a link with merge fields may act for a recipient, such as
confirm an order. Every host is looked up, and only public addresses are connected to, also after a redirect. No body is
read, and no cookie or credential is sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urljoin

import httpx

from postroad.campaign.content import CheckedContent
from postroad.campaign.finding import PreflightCode, PreflightFinding, name_lines, step_finding
from postroad.campaign.links import StepLink, is_same_for_all, is_same_site, link_problem, split_url
from postroad.dns.lookup import LookupStatus
from postroad.dns.public_address import Network, may_connect
from postroad.dns.resolver import Resolver
from postroad.errors import DataError
from postroad.mail.address import ascii_domain

MAX_LINKS: Final = 200
"""Maximum number of different links that one preflight follows."""
CONCURRENT: Final = 8
WITHIN_S: Final = 10.0
"""Deadline of a link with all its redirects, in seconds."""
ALL_WITHIN_S: Final = 120.0
"""Deadline of all links. Those that are left are not checked."""
MAX_REDIRECTS: Final = 5
# Servers give these replies to programs, also where a browser sees a page.
_INCONCLUSIVE: Final = frozenset({401, 403, 405, 406, 407, 408, 425, 429, 451, 503, 999})
_HEADERS: Final = {"User-Agent": "Mozilla/5.0 (compatible; Postroad preflight)", "Accept": "*/*"}
_MAX_NAMED: Final = 5


@dataclass(frozen=True, kw_only=True)
class LinkResult:
    """What following a link showed. ``code``: None if it leads to a page of the same site."""

    code: PreflightCode | None
    why: str = ""


class _NoReplyError(Exception):
    """A URL gave no reply. ``code``: the finding."""

    def __init__(self, code: PreflightCode, why: str) -> None:
        super().__init__(why)
        self.code = code


class LinkChecker:
    """Follows links."""

    def __init__(self, resolver: Resolver, trust: ssl.SSLContext, allowed: Sequence[Network] = ()) -> None:
        """Make the checker.

        Args:
            resolver: Looks up the hosts of links.
            trust: Verifies the certificates of hosts.
            allowed: Networks that are not public, and to which links may lead nevertheless.
        """
        self._resolver = resolver
        self._trust = trust
        self.allowed = allowed

    async def check(self, href: str) -> LinkResult:
        """Follow a link and its redirects. Return the result: there is one for every URL."""
        try:
            async with asyncio.timeout(WITHIN_S):
                return await self._follow(href)
        except (TimeoutError, httpx.TimeoutException):
            return LinkResult(code=PreflightCode.LINK_UNCHECKED, why=f"no reply within {WITHIN_S:g} s")
        except _NoReplyError as error:
            return LinkResult(code=error.code, why=str(error))

    async def _follow(self, href: str) -> LinkResult:
        url = href.partition("#")[0]
        for _ in range(MAX_REDIRECTS + 1):
            parsed = split_url(url)
            if parsed is None or parsed.scheme not in ("http", "https") or not parsed.hostname:
                raise _NoReplyError(PreflightCode.LINK_DEAD, f"it redirects to {url[:100]!r}, which is no web address")
            status, location = await self._request(url, parsed)
            if location is None:
                return _result(href, parsed, status)
            try:
                url = urljoin(url, location)
            except ValueError:
                url = location
        return LinkResult(code=PreflightCode.LINK_DEAD, why=f"it redirects more than {MAX_REDIRECTS} times")

    async def _request(self, url: str, parsed: SplitResult) -> tuple[int, str | None]:
        """Return the status of a URL, and the target of its redirect."""
        host, addresses = await self._addresses(parsed.hostname or "")
        netloc = f"[{host}]" if ":" in host else host
        headers = {"Host": f"{netloc}:{parsed.port}" if parsed.port else netloc, **_HEADERS}
        why = ""
        async with httpx.AsyncClient(verify=self._trust, trust_env=False, timeout=WITHIN_S) as client:
            for address in addresses[:2]:
                try:
                    target = httpx.URL(url).copy_with(host=address, username="", password="")
                    request = client.build_request("GET", target, headers=headers, extensions={"sni_hostname": host})
                    response = await client.send(request, stream=True, follow_redirects=False)
                    await response.aclose()
                except httpx.TimeoutException:
                    raise
                except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                    why = str(error)[:200] or type(error).__name__
                else:
                    redirects = response.has_redirect_location
                    return response.status_code, response.headers["Location"] if redirects else None
        raise _NoReplyError(PreflightCode.LINK_DEAD, f"{host} cannot be reached: {why}")

    async def _addresses(self, host: str) -> tuple[str, list[str]]:
        """Return a host in ASCII, and its addresses, all of which may be connected to."""
        try:
            name, found = host, [str(ip_address(host))]
        except ValueError:
            name, found = await self._look_up(host)
        permitted = [address for address in found if may_connect(address, self.allowed)]
        if not permitted:
            raise _NoReplyError(PreflightCode.LINK_UNUSABLE, f"{name} has no public address")
        return name, permitted

    async def _look_up(self, host: str) -> tuple[str, list[str]]:
        try:
            name = ascii_domain(host.rstrip("."))
            lookups = await self._resolver.addresses(name)
        except (DataError, ValueError):
            raise _NoReplyError(PreflightCode.LINK_DEAD, f"{host[:100]!r} is not the name of a host") from None
        found = [address for lookup in lookups for address in lookup.addresses]
        if not found and any(lookup.status is LookupStatus.NO_ANSWER for lookup in lookups):
            raise _NoReplyError(PreflightCode.LINK_UNCHECKED, f"DNS gives no answer about {name}")
        if not found:
            raise _NoReplyError(PreflightCode.LINK_DEAD, f"{name} has no address in DNS")
        return name, found


def _result(href: str, target: SplitResult, status: int) -> LinkResult:
    if status in _INCONCLUSIVE:
        return LinkResult(code=PreflightCode.LINK_UNCHECKED, why=f"status {status}")
    if status >= 400:
        return LinkResult(code=PreflightCode.LINK_DEAD, why=f"status {status}")
    first = split_url(href)
    host = target.hostname or ""
    if first is not None and not is_same_site(first.hostname or "", host):
        return LinkResult(code=PreflightCode.LINK_REDIRECTS, why=f"redirects to {host}")
    return LinkResult(code=None)


async def follow_links(
    checker: LinkChecker, contents: Iterable[CheckedContent], progress: Callable[[int, int], None] | None = None
) -> list[PreflightFinding]:
    """Follow the links of steps.

    Args:
        checker: Follows each link.
        contents: The steps.
        progress: Called with the number of links that were followed, and of all.

    Returns:
        The findings. A link without a result is a finding, too.
    """
    usable = [
        (content.step.trial.name, link)
        for content in contents
        for link in content.links
        if link.href.lower().startswith(("http://", "https://"))
        and link_problem(link, checker.allowed) is not PreflightCode.LINK_UNUSABLE
    ]
    wanted = dict.fromkeys(link.href for _, link in usable if is_same_for_all(link))
    results: dict[str, LinkResult] = {}
    waiting = iter(list(wanted)[:MAX_LINKS])

    async def work() -> None:
        for href in waiting:
            results[href] = await checker.check(href)
            if progress is not None:
                progress(len(results), min(len(wanted), MAX_LINKS))

    tasks = [asyncio.create_task(work()) for _ in range(CONCURRENT)]
    try:
        await asyncio.wait(tasks, timeout=ALL_WITHIN_S)
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
    return _findings(usable, results)


def _findings(links: Iterable[tuple[str, StepLink]], results: dict[str, LinkResult]) -> list[PreflightFinding]:
    late = LinkResult(code=PreflightCode.LINK_UNCHECKED, why=f"there are more than {MAX_LINKS} links, or they are slow")
    merged = LinkResult(code=PreflightCode.LINK_UNCHECKED, why="it has merge fields, and is not followed")
    found: defaultdict[tuple[str, str, PreflightCode, str], list[StepLink]] = defaultdict(list)
    for where, link in links:
        result = results.get(link.href, late) if is_same_for_all(link) else merged
        if result.code is not None:
            found[where, link.part, result.code, result.why].append(link)
    findings = []
    for (where, part, code, why), same in found.items():
        hrefs = list(dict.fromkeys(link.href[:200] for link in same))
        named = ", ".join(hrefs[:_MAX_NAMED]) + (", …" if len(hrefs) > _MAX_NAMED else "")
        findings.append(
            step_finding(
                code, where, f"{named}: {why}", _REMEDIES[code], part=part, lines=name_lines(link.line for link in same)
            )
        )
    return findings


_REMEDIES: Final = {
    PreflightCode.LINK_DEAD: "Correct the link, or publish the page.",
    PreflightCode.LINK_REDIRECTS: "Link to the final address, or to a host of your own domain.",
    PreflightCode.LINK_UNUSABLE: "Link to a public host, or add its network to preflight.allowed_networks.",
    PreflightCode.LINK_UNCHECKED: "Open it in a browser.",
}
