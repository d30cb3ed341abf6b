"""Domains: findings with the records to publish, what changed, and each number of a report with its rows."""

from __future__ import annotations

import asyncio
import re
from html import unescape

import httpx

from postroad.settings import AccessRole
from tests.console.kit import Console
from tests.console.pages import fill

COUNT = re.compile(r'<a class="num" href="(/domains/[^"]+/rows\?[^"]+)"[^>]*>([\d,]+)</a>')


async def all_pages(http: httpx.AsyncClient, target: str) -> list[str]:
    """Return the text of all pages of a list."""
    pages = []
    while target:
        page = await http.get(target)
        assert page.status_code == 200, page.text
        assert "<script>alert" not in page.text
        pages.append(page.text)
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        target = unescape(following[1]) if following else ""
    return pages


async def test_findings_have_their_remedy_and_the_record_to_publish(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    for path in ("/domains", "/domains/sender?address=offers%40acme.dev"):
        page = (await http.get(path)).text
        assert page.index("DMARC") < page.index("End it with -all or ~all."), "failures are before warnings"
        record = re.search(r'<pre class="record">([^<]+)</pre>', page)
        assert record is not None
        assert unescape(record[1]) == '_dmarc.acme.dev. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@acme.dev"'
        assert "&lt;script&gt;alert(1)" in page


async def test_the_state_of_each_sender_leads_to_its_findings(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/domains")).text
    assert re.search(r'href="/domains/sender\?address=offers%40acme.dev"[^>]*aria-label="2 findings', page)
    assert "reserved domain" in page, "news@example.com"
    assert ">held</span>" in page
    one = (await http.get("/domains/sender?address=offers%40acme.dev")).text
    assert one.count(">new</span>") == 2, "DMARC went missing, and SPF lost its end"
    assert one.count(">gone</span>") == 1
    assert "its DNS passes again" in one
    assert (await http.get("/domains/sender?address=other%40acme.dev")).status_code == 409


async def test_the_canary_of_a_sender_is_shown_with_those_before(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/domains")).text
    assert re.search(r'href="/domains/sender\?address=offers%40acme.dev#canary">fail', page)
    one = (await http.get("/domains/sender?address=offers%40acme.dev")).text
    section = one[one.index('id="canary"') : one.index('id="changes"')]
    assert "it did not arrive" in section
    assert "Check the spam folder." in section
    assert "the receiver reported spf=pass" in section
    assert "<script>alert" not in one
    other = (await http.get("/domains/sender?address=news%40example.com")).text
    assert "there is no mailbox for them" in other


async def test_every_number_of_a_report_leads_to_rows_that_sum_to_it(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    for path, sums in (("/domains/dmarc", 60), ("/domains/tls", 3)):
        pages = await all_pages(http, f"{path}?window=7d")
        found = [(unescape(href), int(n.replace(",", ""))) for page in pages for href, n in COUNT.findall(page)]
        assert len(found) == len(dict(found)) == sums
        assert [n for _, n in found] == sorted((n for _, n in found), reverse=True)
        for href, number in found[:2] + found[-3:]:
            rows = "".join(await all_pages(http, href))
            counts = re.findall(r'</time></td><td class="num">([\d,]+)</td>', rows)
            assert len(counts) == 3, href
            assert sum(int(count.replace(",", "")) for count in counts) == number, href


async def test_sources_filter_by_domain_and_the_first_page_leads_to_all(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    first = (await http.get("/domains")).text
    assert len([href for href, _ in COUNT.findall(first) if "/dmarc/" in href]) == 10
    assert 'href="/domains/dmarc?window=30d">All sources</a>' in first
    ours = await all_pages(http, "/domains/dmarc?domain=acme.dev")
    assert sum(len(COUNT.findall(page)) for page in ours) == 58


async def test_pages_without_reports_and_wrong_filters(console: Console) -> None:
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/domains")).text
    assert "postroad dns read-reports FILE" in page
    assert "postroad dns senders --check" in page
    assert (await http.get("/domains/tls/rows?domain=acme.dev")).status_code == 200
    assert (await http.get("/domains?window=1y")).status_code == 422
    for path in ("dmarc", "tls", "dmarc/rows?header_from=a&source_ip=b", "tls/rows?domain=a"):
        sign = "&" if "?" in path else "?"
        for cursor in ("x", "WzFd", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "WyIx"):
            assert (await http.get(f"/domains/{path}{sign}after={cursor}")).status_code == 422, (path, cursor)
