"""The content of an HTML body is read with the lines of its template, and within limits for any input."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.errors import ConfigError, DataError
from postroad.mail.html_content import MAX_ELEMENTS, read_html, read_template
from postroad.mail.html_reader import HtmlBodyReader
from postroad.mail.template import compile_template


@pytest.fixture
def reader() -> Iterator[HtmlBodyReader]:
    with HtmlBodyReader() as reader:
        yield reader


def test_links_and_images_of_a_template_have_its_lines() -> None:
    template = (
        "{# a comment\nof two lines #}\n<p>{% if name\n   %}<a href='https://a.example/{{ id }}'>One {{ name }}</a>\n"
        "{% endif %}<img src=x>\n<img src=y alt=''><a href=https://b.example>Two\n</a>"
    )
    content = read_template(template)
    assert [(link.href, link.shown, link.line) for link in content.links] == [
        ("https://a.example/{{ id }}", "One {{ name }}", 4),
        ("https://b.example", "Two", 6),
    ]
    assert (content.no_alt, content.images) == ((5,), 2)


def test_logic_in_a_tag_is_part_of_the_address() -> None:
    template = (
        '<a href="https://a.example/{% if x %}b{% else %}c{% endif %}">1</a><p>it\'s 5 < 6</p>'
        '<a {% if x %}href="https://d.example"{% endif %}>2</a>{% if x %}<a href="e">3</a>{% endif %}'
    )
    assert [link.href for link in read_template(template).links] == [
        "https://a.example/{% if x %}b{% else %}c{% endif %}",
        "https://d.example",
        "e",
    ]


def test_what_is_not_shown_is_not_read() -> None:
    html = (
        "<!-- <a href=a>a</a> --><div style='display:none'><a href=b>b</a><img src=b></div>"
        "<style>a{}</style><a name=top>c</a><area href=d alt=map><a href='e'>open<a href='f'>also open"
    )
    content = read_html(html)
    assert [(link.href, link.shown) for link in content.links] == [("d", "map"), ("e", "open"), ("f", "also open")]
    assert (content.no_alt, content.images) == ((), 0)


def test_the_number_of_elements_is_limited() -> None:
    content = read_html("<a href=x>y</a><img src=z>" * (MAX_ELEMENTS + 10))
    assert len(content.links) == len(content.no_alt) == MAX_ELEMENTS
    assert content.images == content.without_alt == MAX_ELEMENTS + 10


def test_the_child_process_reads_both_kinds(reader: HtmlBodyReader) -> None:
    html = "<p>Hello</p><a href='https://a.example'>there</a>"
    assert reader.read(html) == read_html(html)
    assert reader.read(html + "{{ x }}", template=True) == read_template(html + "{{ x }}")


@pytest.mark.parametrize("attack", ["<!--", "<a href='", "<![CDATA[", "</", '<a href="x'])
def test_html_that_takes_quadratic_time_is_refused(attack: str) -> None:
    begun = time.monotonic()
    with HtmlBodyReader() as reader:
        with pytest.raises(DataError, match="more than 5 s of processor time"):
            reader.read(attack * (1_000_000 // len(attack)))
        assert reader.read("<p>x</p>").text == "x\n"  # The next body is read.
    assert time.monotonic() - begun < 55


def test_reading_takes_linear_time() -> None:
    row = (
        '<tr><td><a href="https://example.com/{{ id }}">Read <b>more</b></a><img src="x" alt="{{ name }}"></td></tr>\n'
    )
    times = {}
    for size in (200, 1_600):
        begun = time.thread_time()
        read_template(row * size)
        times[size] = time.thread_time() - begun
    assert times[1_600] < 8 * 3 * times[200]


@given(st.text(alphabet=st.sampled_from("<>/\"'= ahrefimgltspn{}%#!-\n1."), max_size=80))
def test_any_html_is_read(html: str) -> None:
    read_html(html)


@given(
    st.lists(st.sampled_from(["<a href=", '"', "'", ">", "</a>", "{{ x }}", "{% if x %}", "{% endif %}", "\n", "t "]))
)
def test_every_template_that_compiles_is_read(parts: list[str]) -> None:
    source = "".join(parts)
    try:
        compile_template(source, name="t", html=True)
    except ConfigError:
        return
    content = read_template(source)
    assert all(1 <= link.line <= source.count("\n") + 1 for link in content.links)
