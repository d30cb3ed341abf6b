"""Checks the links of a step without following them: addresses that lead nowhere, plain HTTP, texts of another host."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from typing import Final
from urllib.parse import SplitResult, urlsplit

from postroad.campaign.finding import PreflightCode, PreflightFinding, name_lines, step_finding
from postroad.dns.public_address import Network, may_connect
from postroad.mail.html_content import MAX_ELEMENTS

_URL: Final = re.compile(r"https?://[^\s<>\"'\\^`]+", re.IGNORECASE)
_AFTER_URL: Final = ".,;:!?)]}*'"
_NO_SCHEMES: Final = frozenset({"javascript", "vbscript", "file", "data", "about", "blob"})
_PRIVATE: Final = ("localhost", "local", "internal", "lan", "home", "invalid")
# A text that is a host or a URL: "www.example.com", "https://example.com/path", "example.com".
_SHOWN_URL: Final = re.compile(
    r"(?P<scheme>https?://)?(?P<host>(?:[\w-]+\.)+(?P<tld>[a-z]{2,}))(?::\d+)?(?:[/?#]\S*)?", re.IGNORECASE
)
# Without a scheme, these are names of files and products: "Node.js", "README.md".
_NO_TLDS: Final = frozenset(
    {"js", "md", "py", "rs", "sh", "pl", "cs", "cc", "rb", "ts", "vb", "pdf", "doc", "txt", "net"}
)
_MAX_NAMED: Final = 3


@dataclass(frozen=True, kw_only=True)
class StepLink:
    """A link of a step.

    Attributes:
        href: Its address.
        shown: The text that is shown for it, empty in a text.
        part: text or html.
        line: Its line in the template. 0: not known. None: it is a link of a message.
    """

    href: str
    shown: str = ""
    part: str
    line: int | None = None


def links_of_text(text: str, *, lines: bool) -> Iterator[StepLink]:
    """Yield the web links of a text, `MAX_ELEMENTS` at most. ``lines``: whether it is a template, with lines of use."""
    links = (
        StepLink(href=found[0].rstrip(_AFTER_URL), part="text", line=number if lines else None)
        for number, line in enumerate(text.split("\n"), start=1)
        for found in _URL.finditer(line)
    )
    return islice(links, MAX_ELEMENTS)


def link_findings(where: str, links: Iterable[StepLink], allowed: Sequence[Network] = ()) -> Iterator[PreflightFinding]:
    """Yield a finding for each kind of problem in a part of a step, with the lines of the links.

    Args:
        where: The campaign and the step.
        links: The links of its templates, and after them those of its messages. A link of a message is ignored if a
            template has its host.
        allowed: Networks that are not public, and to which links may lead nevertheless.
    """
    problems: defaultdict[tuple[PreflightCode, str], dict[StepLink, None]] = defaultdict(dict)
    of_templates: set[tuple[str, str, str]] = set()
    for link in links:
        parsed = split_url(link.href)
        site = (link.part, parsed.scheme, parsed.netloc) if parsed is not None else (link.part, "", link.href)
        if link.line is not None:
            if (not site[2] and not is_same_for_all(link)) or "{" in site[2]:
                continue  # The messages show what it is.
            of_templates.add(site)
        elif site in of_templates:
            continue
        code = link_problem(link, allowed)
        if code is not None:
            problems[code, link.part][link] = None
    for (code, part), distinct in problems.items():
        found = list(distinct)
        named = ", ".join(dict.fromkeys(_named(code, link) for link in found))
        yield step_finding(
            code,
            where,
            f"{_count(len(found))} {_PROBLEMS[code]}: {named if len(found) <= _MAX_NAMED else _few(code, found)}",
            _REMEDIES[code],
            part=part,
            lines=name_lines(link.line for link in found),
        )


def is_same_for_all(link: StepLink) -> bool:
    """Return whether a link of a template is the same for every recipient."""
    return "{{" not in link.href and "{%" not in link.href


def split_url(href: str) -> SplitResult | None:
    """Return the parts of a URL. None: it is not valid."""
    try:
        parsed = urlsplit(href.strip())
        parsed.port  # noqa: B018  (raises ValueError for an invalid port)
    except ValueError:
        return None
    return parsed


def link_problem(link: StepLink, allowed: Sequence[Network] = ()) -> PreflightCode | None:
    """Return what is wrong with a link, or None. ``allowed``: networks to which it may lead although not public."""
    parsed = split_url(link.href)
    if parsed is None:
        return PreflightCode.LINK_UNUSABLE
    if parsed.scheme not in ("http", "https"):
        # "#top" leads to a part of the same message, and "mailto:" to another program.
        is_usable = re.match(r"#[^#]", link.href) or (parsed.scheme and parsed.scheme not in _NO_SCHEMES)
        return None if is_usable else PreflightCode.LINK_UNUSABLE
    if not _is_usable_host(parsed.hostname or "", allowed):
        return PreflightCode.LINK_UNUSABLE
    shown = shown_host(link.shown)
    if shown is not None and not is_same_site(shown, parsed.hostname or ""):
        return PreflightCode.LINK_OTHER_HOST
    return PreflightCode.LINK_HTTP if parsed.scheme == "http" else None


def _is_usable_host(host: str, allowed: Sequence[Network]) -> bool:
    try:
        return may_connect(str(ip_address(host)), allowed)
    except ValueError:
        if allowed:
            return bool(host)  # A network of one's own has names of its own.
        return "." in host.strip(".") and host.rstrip(".").rpartition(".")[2].lower() not in _PRIVATE


def shown_host(text: str) -> str | None:
    """Return the host that a link's text shows, if the text is a URL or the name of a host."""
    found = _SHOWN_URL.fullmatch(text.strip().rstrip("."))
    if found is None:
        return None
    host = found["host"].lower()
    if found["scheme"] is None and not host.startswith("www.") and found["tld"].lower() in _NO_TLDS:
        return None
    return host


def is_same_site(shown: str, host: str) -> bool:
    """Return whether two hosts are of one domain, approximated without a list of public suffixes."""
    return _domain(shown) == _domain(host)


def _domain(host: str) -> list[str]:
    labels = host.lower().rstrip(".").split(".")
    under_country = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3  # example.co.uk
    return labels[-3:] if under_country else labels[-2:]


def _count(links: int) -> str:
    return "a link" if links == 1 else f"{links} links"


def _named(code: PreflightCode, link: StepLink) -> str:
    href = link.href if len(link.href) <= 100 else f"{link.href[:100]}…"
    return f"{link.shown.strip()} leads to {href}" if code is PreflightCode.LINK_OTHER_HOST else href or '""'


def _few(code: PreflightCode, links: list[StepLink]) -> str:
    return f"{', '.join(dict.fromkeys(_named(code, link) for link in links[:_MAX_NAMED]))}, …"


_PROBLEMS: Final = {
    PreflightCode.LINK_HTTP: "without https",
    PreflightCode.LINK_UNUSABLE: "without a public web address",
    PreflightCode.LINK_OTHER_HOST: "whose text shows another host",
}
_REMEDIES: Final = {
    PreflightCode.LINK_HTTP: "Write https://.",
    PreflightCode.LINK_UNUSABLE: "Write a whole address, such as https://www.example.com/page.",
    PreflightCode.LINK_OTHER_HOST: "Show words instead of an address, or the address that the link leads to.",
}
