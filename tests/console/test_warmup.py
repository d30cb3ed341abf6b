"""Warmup: the curve next to the plan, decisions with their reasons, and a cap that is set manually."""

from __future__ import annotations

import asyncio
import re
from datetime import date, timedelta
from html import unescape
from itertools import pairwise

import sqlalchemy as sa

from postroad.console.charts import NamedValues, day_chart
from postroad.queue import Queue
from postroad.settings import AccessRole
from postroad.store.engine import read
from postroad.store.warmup import days_of, overrides_of
from tests.console.kit import Console
from tests.console.pages import fill

CURVE = "/warmup/curve?identity=news%40example.com&provider=google"
FORM = {"identity": "news@example.com", "provider": "google"}


async def test_it_shows_the_caps_of_each_identity_and_provider(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    page = (await (await console.client(AccessRole.VIEW)).get("/warmup")).text
    assert [unescape(each) for each in re.findall(r'<th scope="row" class="short"><a href="([^"]+)">', page)] == [
        CURVE,
        CURVE.replace("google", "outlook"),
    ]
    assert "0.07 % on" in page, "the newest spam rate"
    assert page.count("Nothing is decided yet") == 2, "the domain and the source address"
    assert "/warmup/override" not in page


async def test_decisions_are_listed_once_with_their_reasons(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    days, reasons, target = [], 0, CURVE
    while target:
        page = await http.get(target)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        days += re.findall(
            r'<tr><th scope="row" class="short">([\d-]+)</th><td class="num">[\d,]+</td><td class="num">', page.text
        )
        reasons += page.text.count("2.1 % of the mail was deferred")
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        target = unescape(following[1]) if following else ""
    assert len(days) == len(set(days)) == 70
    assert days == sorted(days, reverse=True)
    assert reasons == 2
    assert (await http.get(f"{CURVE}&after=nonsense")).status_code == 422


async def test_the_chart_has_cap_plan_and_delivered_mail_and_reports_follow(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    page = (await (await console.client(AccessRole.VIEW)).get(CURVE)).text
    chart = page[page.index("<svg viewBox") : page.index("</svg>", page.index("<svg viewBox"))]
    assert chart.count('class="chart-line') == 3
    assert ">100k</text>" in chart
    assert page.count("<td>postmaster</td>") == 11
    assert "set manually" in page
    assert ">777<" in page


async def test_a_cap_is_set_for_all_identities_of_the_senders_and_recorded(
    console: Console, engine: sa.Engine, redis_url: str
) -> None:
    await asyncio.to_thread(fill, engine)
    http = await console.client(AccessRole.OPERATE, user="carl@example.com")
    asked = await http.get("/warmup/override", params=FORM)
    assert "today&#39;s cap now" in asked.text
    assert "news@example.com, example.com, 192.0.2.7 at google" in asked.text
    for wrong in ("", "0", "-5", "1.5", "ten", "1000000001", "²"):
        refused = await http.post("/warmup/override", data={**FORM, "cap": wrong, "why": "x"})
        assert refused.status_code == 422, wrong
        assert 'id="field-cap-error"' in refused.text
    assert (await http.post("/warmup/override", data={**FORM, "cap": "5", "why": " "})).status_code == 422

    done = await http.post("/warmup/override", data={**FORM, "cap": "1,234", "why": "agreed with the provider"})
    assert (done.status_code, done.headers["location"]) == (303, CURVE)
    names = ["192.0.2.7", "example.com", "news@example.com"]
    with read(engine) as connection:
        today = {row.identity: row for row in days_of(connection, names, since=date.min) if row.move == "override"}
        set_by = {(each.by, each.why) for each in overrides_of(connection, names) if each.cap == 1_234}
    assert {name: row.cap for name, row in today.items()} == dict.fromkeys(names, 1_234)
    assert set_by == {("carl@example.com in the console", "agreed with the provider")}
    record = console.audit()[0]
    assert (record.action, record.target) == ("warmup.override", "news@example.com at google")
    assert (record.count, record.note) == (3, "1,234: agreed with the provider")
    async with Queue.open(redis_url, "email:send") as queue:
        gates = {state.gate.name: state.gate for state in await queue.gates()}
    quota = gates["warmup:google:news@example.com"].quota
    assert quota is not None
    assert quota.size == 1_234
    page = (await http.get(CURVE)).text
    assert "set by carl@example.com in the console: agreed with the provider" in page


async def test_an_identity_without_a_decision_shows_its_plan(console: Console) -> None:
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/warmup/curve?identity=example.com&provider=yahoo")).text
    assert "Nothing is decided yet" in page
    assert page.count('<th scope="row">20') == 30
    for wrong in ("identity=other.example&provider=google", "identity=example.com&provider=nonsense"):
        assert (await http.get(f"/warmup/curve?{wrong}")).status_code == 409


def test_a_chart_of_days_has_a_scale_of_tenfolds_and_few_labels() -> None:
    days = [date(2027, 3, 1) + timedelta(days=number) for number in range(45)]
    chart = day_chart(
        [NamedValues(name="cap", css_class="", values=[10 ** (number % 4) for number in range(45)])], days
    )
    heights = [tick.at for tick in chart.rows]
    steps = [round(lower - upper, 1) for lower, upper in pairwise(heights)]
    assert [tick.label for tick in chart.rows] == ["1", "10", "100", "1k"]
    assert max(steps) - min(steps) <= 0.2
    assert len(chart.columns) <= 10
    alone = day_chart([NamedValues(name="cap", css_class="", values=[0])], days[:1])
    assert "nan" not in alone.series[0].line
    assert alone.series[0].line.count("H") == 1, "one day is a line of its own length"
    assert [series.name for series in day_chart([NamedValues(name="sent", css_class="", values=[])], days).series] == []
