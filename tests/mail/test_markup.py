"""HTML templates processed by tools for HTML: the result renders correctly, and the logic is in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.errors import ConfigError
from postroad.mail.markup import inline_css, mjml_to_html, prepare_parts, text_of
from postroad.mail.plain_text import plain_text
from postroad.mail.template import compile_template

STYLE = "<style>p { color: red } td { padding: 4px }</style>"


def rendered(source: str, **fields: object) -> str:
    return compile_template(source, name="t", html=True).render(fields)


def inlined(source: str) -> str:
    return inline_css(source, name="hello.html")


def test_rules_move_onto_their_elements_and_media_queries_stay() -> None:
    html = inlined(f"<html><head>{STYLE}<style>@media print {{ p {{ color: blue }} }}</style></head><p>Hi</p></html>")
    assert '<p style="color: red;">Hi</p>' in html
    assert "@media print" in html
    assert "p { color: red }" not in html


@pytest.mark.parametrize(
    "source",
    ["<p>plain &amp; simple<br>{{ x }}", '<style data-css-inline="ignore">p{}</style><p {% if x %}a{% endif %}>', ""],
)
def test_html_without_styles_to_move_is_left_as_it_is(source: str) -> None:
    assert inlined(source) == source


def test_nothing_is_loaded_from_this_machine_or_another(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text("p { color: green }")
    links = "".join(
        f'<link rel="stylesheet" href="{href}">'
        for href in (tmp_path / "x.css", (tmp_path / "x.css").as_uri(), "http://127.0.0.1:1/x.css")
    )
    html = inlined(f"<head>{STYLE}{links}</head><p>Hi</p>")
    assert "green" not in html
    assert html.count("<link") == 3


FIELDS = {"x": 2, "name": "Ada & <Co>", "colour": "#333", "rows": ["a", "b"], "url": "https://e.com/?a=1&b=2"}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("<p>{{ name }}</p>", '<p style="color: red;">Ada &amp; &lt;Co&gt;</p>'),
        ("{% if x > 1 and x < 3 %}<p>yes</p>{% else %}<p>no</p>{% endif %}", '<p style="color: red;">yes</p>'),
        ('<p class="{{ name|default("y") }}">z</p>', '<p class="Ada &amp; &lt;Co&gt;" style="color: red;">z</p>'),
        ("<p title='{% if x %}a{% else %}b{% endif %}'>z</p>", '<p title="a" style="color: red;">z</p>'),
        ("<p title={{ x }}>z</p>", '<p title="2" style="color: red;">z</p>'),
        ('<p><a href="{{ url }}">go</a></p>', '<a href="https://e.com/?a=1&amp;b=2">go</a>'),
        ("<title>{{ name }}</title><p>z</p>", "<title>Ada &amp; &lt;Co&gt;</title>"),
        ("{% raw %}<p>{{ x }}</p>{% endraw %}", '<p style="color: red;">{{ x }}</p>'),
        ("<p>z</p><!--{{ x }}-->", "<!--2-->"),
        ("{# <p> #}<p>z</p>", '<p style="color: red;">z</p>'),
        ("<p>{{ '<' ~ x }}</p>", '<p style="color: red;">&lt;2</p>'),
    ],
)
def test_what_jinja_reads_comes_through(source: str, shown: str) -> None:
    assert shown in rendered(inlined(STYLE + source), **FIELDS)


def test_a_loop_over_rows_stays_in_its_table() -> None:
    html = inlined(f"{STYLE}<table>{{% for row in rows %}}<tr><td>{{{{ row }}}}</td></tr>{{% endfor %}}</table>")
    shown = rendered(html, **FIELDS)
    table = shown[shown.index("<table>") : shown.index("</table>")]
    assert table.count("<tr><td") == 2
    assert '<td style="padding: 4px;">b</td>' in table


def test_a_field_in_a_style_goes_where_the_style_goes() -> None:
    html = inlined("<style>p { color: {{ colour }} } h6 { color: {{ name }} }</style><p>z</p><p>z</p>")
    assert rendered(html, **FIELDS).count('<p style="color: #333;">z</p>') == 2


@pytest.mark.parametrize(
    ("source", "says", "line"),
    [
        ("\n<p {% if x %}class='a'{% endif %}>z</p>", "{% if x %} is between the attributes of a tag", 2),
        ("\n<p {{ x }}>z</p>", "{{ x }} is between the attributes of a tag", 2),
        ("{% if x %}<div class=a>{% else %}<div class=b>{% endif %}</div>", "its tags do not match in pairs", None),
        ("\n\n{% if x %}", "Unexpected end of template", 3),
        ("\n{{ x", "unexpected end of template", 2),
    ],
)
def test_what_does_not_go_together_is_said_with_its_line(source: str, says: str, line: int | None) -> None:
    with pytest.raises(ConfigError) as caught:
        inlined(STYLE + source)
    assert says in caught.value.message
    assert caught.value.where == ("hello.html" if line is None else f"hello.html, line {line}")


PARTS = st.sampled_from(
    [
        "<p>{{ name }}</p>",
        "{% if x %}<p>a</p>{% endif %}",
        "{% for r in rows %}<div>{{ r }}</div>{% endfor %}",
        '<a href="{{ url }}">{{ name }}</a>',
        "text &amp; more",
        "<br>",
        "<table>{% for r in rows %}<tr><td>{{ r }}</td></tr>{% endfor %}</table>",
        "<!-- a comment {{ x }} -->",
        "<!--{{ x }}-->",
        "zq0z",
    ]
)


@given(st.lists(PARTS, max_size=6).map("".join))
def test_inlining_does_not_change_the_plain_text(body: str) -> None:
    shown = rendered(inlined(STYLE + body), **FIELDS)
    plain = rendered(f"<html><body>{body}</body></html>", **FIELDS)
    assert plain_text(shown).split() == plain_text(plain).split()


MJML = """<mjml><mj-head><mj-title>{{ title }}</mj-title></mj-head><mj-body>
{% if x < 3 %}<mj-section background-color="{{ colour }}"><mj-column>
<mj-text>Hello {{ name|default("you") }}{% for r in rows %}<br/>{{ r }}{% endfor %}</mj-text>
<mj-button href="{{ url }}">Go</mj-button></mj-column></mj-section>{% endif %}
</mj-body></mjml>"""


def test_mjml_becomes_html_with_its_logic_and_fields() -> None:
    html = mjml_to_html(MJML, name="hello.mjml")
    shown = rendered(html, title="T", **FIELDS)
    assert "Hello Ada &amp; &lt;Co&gt;<br />a<br />b</div>" in shown
    assert 'href="https://e.com/?a=1&amp;b=2"' in shown
    assert "background-color:#333" in shown
    assert "<title>T</title>" in shown
    hidden = rendered(html, title="T", **{**FIELDS, "x": 5})
    assert "Hello" not in hidden
    assert hidden.count("<table") == hidden.count("</table>")


@pytest.mark.parametrize(
    ("source", "says", "line"),
    [
        ("<mjml><mj-body>", "not valid MJML: unexpected end", 1),
        ("Hello", "not valid MJML", 1),
        ("<mjml><mj-body>\n<mj-include path='/etc/passwd'/></mj-body></mjml>", "not valid MJML: unable to load", 2),
        (
            "<mjml><mj-body>{% if\nx %}\n<mj-image>{{ x }}</mj-image>{% endif %}</mj-body></mjml>",
            "not valid MJML: unexpected token",
            3,
        ),
        ("<mjml><mj-body>{{\nx }}\n<mj-txt>x</mj-txt></mj-body></mjml>", "MJML has no component mj-txt", 3),
        ("<mjml><mj-body>\n{% if x %}</mj-body></mjml>", "Unexpected end of template", 2),
    ],
)
def test_what_is_no_mjml_is_said_with_its_line(source: str, says: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        mjml_to_html(source, name="hello.mjml")
    assert says in caught.value.message
    assert caught.value.where == f"hello.mjml, line {line}"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Hello   <b>you</b>,\n<i>there</i></p><p>Bye</p>", "Hello you, there\n\nBye\n"),
        ("one<br>two<div>three</div>four", "one\ntwo\nthree\nfour\n"),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "* a\n  * b\n* c\n"),
        ("<ol><li>a</li><li>b</li></ol>", "1. a\n2. b\n"),
        ('<a href="https://e.com/">here</a>.', "here (https://e.com/).\n"),
        ('<a href="https://e.com/">https://e.com/</a>', "https://e.com/\n"),
        ('<a href="mailto:a@e.com">a@e.com</a> <a href="#top">up</a>', "a@e.com up\n"),
        ('<a href="https://e.com/"><img src="x" alt="Logo"></a>', "Logo (https://e.com/)\n"),
        ('<a href="https://e.com/"><img src="x"></a>', "https://e.com/\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc\n"),
        ("<head><title>t</title><style>p{}</style></head><script>x</script>a", "a\n"),
        ('<div style="display: none">preview<br><img src="x"></div>a', "a\n"),
        ("<!--[if mso]><p>Outlook</p><![endif]-->a", "a\n"),
        ("a &amp; b &lt;c&gt;&nbsp;d &uuml;", "a & b <c>\u00a0d ü\n"),
        ("a<hr>b", "a\n\n---\n\nb\n"),
        ("<p>a\u200b\u200c </p>", "a\n"),
        ("", "\n"),
        ("</p></div></ul></a>a", "a\n"),
    ],
)
def test_the_text_says_what_the_html_does(html: str, text: str) -> None:
    assert plain_text(html) == text


def test_a_text_that_is_made_of_html_is_a_template_too() -> None:
    html = (
        '<p>Hello {{ name }} &amp; co,</p>{% if x %}<p><a href="{{ unsubscribe_url }}">Leave</a></p>{% endif %}'
        '<p class="{{ colour }}">{{ postal_address }}</p>'
    )
    text = compile_template(text_of(html, name="t"), name="t")
    assert text.fields == {"name", "x", "unsubscribe_url", "postal_address"}
    fields = {"name": "A & <B>", "x": 1, "unsubscribe_url": "https://u", "postal_address": "Street"}
    assert [line for line in text.render(fields).split("\n") if line] == [
        "Hello A & <B> & co,",
        "Leave (https://u)",
        "Street",
    ]


def test_a_text_that_was_written_is_kept() -> None:
    assert prepare_parts(text="mine", html="<p>theirs</p>", mjml=None, name="t") == ("mine", "<p>theirs</p>")
    text, html = prepare_parts(text=None, html=None, mjml=MJML, name="t")
    assert 'Hello {{ name|default("you") }}' in text
    assert html is not None
    assert html.startswith("<!doctype html>")


@given(st.text())
def test_any_text_at_all_is_read_without_an_error(html: str) -> None:
    assert plain_text(html).endswith("\n")


STAYS = [
    "a:hover{color:blue !important}",
    "a:visited { color: red }",
    "A:HOVER b , i:Focus-Within{color:red}",
    "a:not(:hover) { color: red }",
    "p::before { content: '}' }",
    "p:first-line{color:green}",
    ":root { --brand: #f00 }",
    "@font-face{font-family:X;src:url(x.woff)}",
    "@import url(http://x/y.css?a=1;b=2);",
    "@media (prefers-color-scheme: dark){.d{color:#fff !important} p:hover{top:0}}",
    "@supports (display: grid) { p { display: grid } }",
    "@keyframes k { from { top: 0 } to { top: 1px } }",
    "@media screen { @media (min-width: 1px) { p { top: 0 } } }",
    "u + .body .x{color:#111}",
    "[data-ogsc] .d{color:#222}",
    ".ExternalClass, .ExternalClass p {width:100%}",
    "#outlook a{padding:0}",
    "* [lang='x{y}'] { color: red }",
    ".mail { p { color: red } &:hover { color: blue } }",
    "/* a } comment */ .nowhere{/* { */color:red}",
    ".a\\:hover{color:red}",
    "p { {% if x %}color: blue{% endif %} }",
    "{% if x %}p { color: blue } p { top: 0 } p { left: 0 }{% endif %}",
]


@pytest.mark.parametrize("rule", STAYS)
def test_a_rule_that_matches_no_element_stays_as_written(rule: str) -> None:
    html = inlined(
        f"<html><head><style>p{{color:red}} {rule}\n td{{top:0}}</style></head><body class=body><p>x</p></body></html>"
    )
    assert f"{rule}" in html
    assert '<p style="color: red;">x</p>' in html
    assert "p{color:red}" not in html
    assert "zr" not in html


@pytest.mark.parametrize(
    "rule", [rule for rule in STAYS if rule.startswith(("a:", "A:", "p:", "p {", ":", "@", "{%", ".mail"))]
)
def test_html_none_of_whose_rules_can_be_moved_is_left_as_it_is(rule: str) -> None:
    source = f"<!DOCTYPE html>\n<style>{rule}</style><DIV title='a'><br/>{{{{ name }}}}</DIV>"
    assert inlined(source) == source


def test_selectors_that_match_no_element_stay() -> None:
    html = inlined("<style>p, a:hover, .x > u, p:first-child{color:red}</style><p>x</p>")
    assert "<style>\na:hover, .x > u {color:red}</style>" in html
    assert '<p style="color: red;">x</p>' in html


@pytest.mark.parametrize("media", ["print", "'(max-width: 600px)'", '"screen and (max-width: 1px)"'])
def test_a_style_sheet_for_some_media_stays(media: str) -> None:
    sheet = f"<style media={media}>p{{color:red}}</style>"
    assert sheet in inlined(f"{sheet}<style>p{{top:0}}</style><p>x</p>")
    assert '<p style="top: 0;">' in inlined(f"{sheet}<style media='all' type=\"text/css\">p{{top:0}}</style><p>x</p>")


COMMENTS = [
    "<!--[if mso]><table width=600><tr><td class='b'><![endif]-->",
    "<!--[if mso]></td></tr></table><![endif]-->",
    "<!--[if (gte mso 9)|(IE)]><xml><o:AllowPNG/></xml><style>.b{color:blue}</style><![endif]-->",
    "<!--[if mso]><v:roundrect href='{{ url }}' style=height:40px><center>Go</center></v:roundrect><![endif]-->",
    "<!--[if !mso]><!-->",
    "<!--<![endif]-->",
    "<!--[if !mso]><!-- -->",
    "<![if !mso]>",
    "<![endif]>",
    "<!--[if mso]><!--[if gte mso 9]>x<![endif]--><![endif]-->",
    "<!--[if mso]>{% for r in rows %}<td>{{ r }}</td>{% endfor %}<![endif]-->",
    "<?xml version='1.0'?>",
    "<!-- a -- comment > of <b>any</b> kind -->",
    "<!---->",
]


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize(
    "doctype",
    [
        "",
        "<!doctype html>",
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"\n "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">',
    ],
)
def test_comments_and_the_doctype_stay_as_they_are_written(comment: str, doctype: str) -> None:
    body = f"{comment}<p>x{comment}</p>{comment}"
    html = inlined(f"{doctype}<html><head>{comment}<style>p{{color:red}}</style></head><body>{body}</body></html>")
    assert html.startswith(f"{doctype}<html><head>{comment}")
    assert f'<body>{comment}<p style="color: red;">x{comment}</p>{comment}' in html


@given(st.lists(st.sampled_from([*COMMENTS, "<p>x</p>", "{{ name }}", "<b>y</b>"]), max_size=8))
def test_comments_of_any_number_stay_in_their_order(parts: list[str]) -> None:
    html = inlined(f"<html><head><style>p{{color:red}} a:hover{{}}</style></head><body>{''.join(parts)}</body></html>")
    at = 0
    for part in parts:
        at = html.index(part.replace("<p>", '<p style="color: red;">'), at) + 1


def test_a_rule_for_outlook_stays_and_is_inlined_elsewhere() -> None:
    html = inlined("<style>.b{color:red} i{top:0}</style><!--[if mso]><a class=b>x</a><![endif]--><i class=b>y</i>")
    assert "<style>.b{color:red}</style>" in html
    assert '<i class="b" style="top: 0;color: red;">y</i>' in html


def test_a_rule_stays_for_classes_that_the_template_makes() -> None:
    html = inlined('<style>.b{color:red} i{top:0}</style><i class="{{ name }}">x</i><i class=b>y</i>')
    assert "<style>.b{color:red}</style>" in html
    assert '<i class="b" style="top: 0;color: red;">y</i>' in html


def test_a_selector_with_a_field_in_it_stays() -> None:
    source = '<style>.{{ name }} p{color:{{ colour }}} p{top:{{ x }}px}</style><div class="{{ name }}"><p>x</p></div>'
    shown = rendered(inlined(source), **{**FIELDS, "name": "ada"})
    assert "<style>.ada p{color:#333}</style>" in shown
    assert '<p style="top: 2px;">' in shown


def test_a_style_sheet_of_comments_alone_leaves_nothing() -> None:
    html = inlined("<style><!-- /* p */ p{color:red} --></style><p>x</p>")
    assert "<style" not in html
    assert '<p style="color: red;">' in html
