"""HTML and MJML that end or hold up the tools that read them are an error, and the calling process continues."""

from __future__ import annotations

import time

import pytest

from postroad.errors import ConfigError
from postroad.mail.markup_process import prepare_in_subprocess

STYLE = "<style>p { color: red }</style>"
ATTACKS = {
    "nested elements": {"html": STYLE + "<div>" * 100_000 + "</div>" * 100_000},
    "unclosed elements": {"html": STYLE + "".join(f"<b a={n}>" for n in range(20_000)) + "<p>" * 20_000},
    "nested sections": {
        "mjml": "<mjml><mj-body>" + "<mj-wrapper>" * 9_000 + "</mj-wrapper>" * 9_000 + "</mj-body></mjml>"
    },
    "unclosed comments": {"html": "<!--" * 200_000},
    "nested lists": {"html": "<ul><li>" * 100_000},
}


@pytest.mark.parametrize("sources", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.timeout(120)
def test_markup_beyond_the_limits_is_an_error(sources: dict[str, str]) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError) as caught:
        prepare_in_subprocess(text=None, html=sources.get("html"), mjml=sources.get("mjml"), name="hello.html")
    assert (caught.value.where or "").startswith("hello.html")
    assert time.process_time() - begun < 2, "the process that asked does none of the work"


def test_what_the_child_says_is_what_the_tools_say() -> None:
    text, html = prepare_in_subprocess(text=None, html=f"{STYLE}<p>Hi {{{{ name }}}}</p>", mjml=None, name="hello.html")
    assert text == "Hi {{ name }}\n"
    assert '<p style="color: red;">Hi {{ name }}</p>' in (html or "")
    with pytest.raises(ConfigError, match="between the attributes of a tag") as caught:
        prepare_in_subprocess(text="x", html=f"{STYLE}\n<p {{{{ name }}}}>", mjml=None, name="hello.html")
    assert caught.value.where == "hello.html, html, line 2"
    assert "value of an attribute" in (caught.value.remedy or "")
