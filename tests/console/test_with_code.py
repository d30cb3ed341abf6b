"""What a remedy names between backticks is shown as code, and all else is escaped."""

from __future__ import annotations

import pytest

from postroad.console.templates import with_code


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Run `postroad up`, then look at `doctor`.",
            "Run <code>postroad up</code>, then look at <code>doctor</code>.",
        ),
        ("`<b>` is <b>", "<code>&lt;b&gt;</code> is &lt;b&gt;"),
        ("5` long", "5` long"),
        ("`a` and ` <i>", "`a` and ` &lt;i&gt;"),
        ("`a\x1b[1m`", "<code>a\\x1b[1m</code>"),
        ("", ""),
    ],
)
def test_what_is_between_backticks_is_code(text: str, shown: str) -> None:
    assert str(with_code(text)) == shown
