"""Data in a page of Markdown, such as a run's artifact, is shown as it is."""

from __future__ import annotations

import pytest

from postroad.dns.finding import RecordVerdict
from postroad.dns.show import markdown
from postroad.printable import counted, escape_active_markdown, escape_markdown
from postroad.warmup.show import markdown_table
from tasks.report import literal_cells

ACTIVE = [
    "[click](https://evil.example)",
    "<img src=x onerror=alert(1)>",
    "https://evil.example",
    "www.evil.example",
    "![x](https://evil.example/pixel)",
    "# heading",
    "- item",
    "1. item",
    "---",
    "a | b",
    "`code`",
    "**bold** _em_",
    "&lt;b&gt;",
    "line\n\n# heading",
    "\x1b[2J",
]


@pytest.mark.parametrize("text", ACTIVE)
def test_text_that_markdown_would_act_on_is_escaped_everywhere(text: str) -> None:
    escaped = escape_markdown(text)
    assert escape_active_markdown(text) == escaped
    assert literal_cells([{"value": text, "count": 1}]) == [{"value": escaped, "count": 1}]
    assert f"| {escaped} |" in markdown_table(["reason"], [[text]])
    assert "\n" not in escaped
    assert escaped.isprintable()


@pytest.mark.parametrize(
    "text",
    ["ada@example.com", "email:send", "first_steps", "550 5.1.1 no such user", "2026-05-04", "0.50% on 2026-05-04", ""],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert escape_active_markdown(text) == text


def test_a_page_about_dns_has_one_heading_whatever_a_record_says() -> None:
    assert markdown("example.com", RecordVerdict.PASS, []).count("#") == 1


def test_a_count_of_one_has_the_singular() -> None:
    shown = [counted(0, "row"), counted(1, "row"), counted(2, "row"), counted(1_000, "touch", "touches")]
    assert shown == ["0 rows", "1 row", "2 rows", "1,000 touches"]
