"""Bodies encoded in advance have the same octets as an encoded rendering. MIME structure with files."""

from __future__ import annotations

import base64
import re
from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroad.errors import DataError
from postroad.mail.body import File, MergeValues, StaticChunk, TemplateChunk, message_entity, quoted_printable
from postroad.mail.dkim import relaxed_lines
from postroad.mail.message import CompiledMessage, MessageSource, compile_message
from postroad.mail.template import compile_template
from tests.mail.conftest import NOW, SIGNER, compiled, sender
from tests.mail.parsing import TEXT

PIECES = st.one_of(
    st.sampled_from(
        [
            "{{ a }}",
            "{{ b }}",
            "{{ c|default('x & y\\r\\n') }}",
            "{{- a -}}",
            "\n",
            "\r\n",
            "\r",
            ".",
            " ",
            "\t",
            "{# c #}",
        ]
    ),
    st.sampled_from(
        ["=", "é", "x" * 74, "y" * 76, "\u2028", "\x0b", "{% raw %}{{ a }}{% endraw %}", "<b>", "From ", "--"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=20),
)
TEMPLATE = st.lists(PIECES, max_size=12).map("".join)
LOGIC = st.sampled_from(["", "{% if a %}{{ b }}\n{% endif %}", "{{ a|upper }}", "{{ a ~ b }}", "{{ 1 }}"])


@given(TEMPLATE, LOGIC, TEXT, TEXT, st.booleans())
def test_a_body_encoded_ahead_is_the_whole_rendering_encoded(
    source: str, logic: str, a: str, b: str, html: bool
) -> None:
    template = compile_template(source + logic, name="t", html=html)
    fields = {"a": a, "b": b}
    expected = quoted_printable(template.template.render(fields))
    assert template.render(fields) == template.template.render(fields)
    other = compile_template("", name="t")
    entity = message_entity(template, None, []) if not html else message_entity(other, template, [])
    values = MergeValues(fields)
    wire = b"".join(piece.encoded if isinstance(piece, StaticChunk) else piece.encode(values) for piece in entity.body)
    canonical = b"".join(
        piece.canonical if isinstance(piece, StaticChunk) else relaxed_lines(piece.encode(values))
        for piece in entity.body
    )
    assert canonical == relaxed_lines(wire)
    if html:
        wire = wire.partition(b"text/html; charset=utf-8\r\n")[2].partition(b"\r\n\r\n")[2]
        wire = wire.removesuffix(b"\r\n--=_postroad_alternative--\r\n")
    assert wire == expected


@given(TEMPLATE)
def test_a_template_of_slots_only_is_merged_without_jinja(source: str) -> None:
    assert compile_template(source, name="t").segments is not None


def test_lines_without_a_field_are_one_piece() -> None:
    text = compile_template("one\ntwo é\n{{ a }} three\nfour\nfive\n", name="t")
    body = message_entity(text, None, []).body
    assert [type(piece) for piece in body] == [StaticChunk, TemplateChunk, StaticChunk]
    assert body[0] == StaticChunk(encoded=b"one\r\ntwo =C3=A9\r\n", canonical=b"one\r\ntwo =C3=A9\r\n")


@pytest.mark.parametrize("part", ["text", "html"])
def test_a_missing_field_is_said_with_its_line(part: str) -> None:
    broken = "one\n{{ nobody }}\n"
    message = compiled(subject="x", text=broken if part == "text" else "x", html=broken if part == "html" else "x")
    with pytest.raises(DataError, match="'nobody' is undefined") as caught:
        message.merge(7, "ada@example.org", {}, NOW)
    assert caught.value.where == f"campaign welcome, step hello, {part}, line 2"


PDF = File(name="terms.pdf", media_type="application/pdf", octets=bytes(range(256)) * 9)
LOGO = File(name="logo.png", media_type="image/png", octets=b"\x89PNG\r\n", content_id="logo.png")


def with_files(*files: File, html: str | None = '<img src="cid:logo.png">{{ field }}') -> CompiledMessage:
    return compile_message(
        MessageSource(subject="x", text="{{ field }}", html=html, files=files),
        sender=sender(),
        signer=SIGNER,
        public_url="https://mail.example.com",
    )


def shape(part: MIMEPart) -> object:
    if part.is_multipart():
        return {part.get_content_subtype(): [shape(each) for each in part.iter_parts()]}
    return part.get_content_type()


@pytest.mark.parametrize(
    ("files", "html", "shaped"),
    [
        ([PDF], None, {"mixed": ["text/plain", "application/pdf"]}),
        ([PDF], "<p>", {"mixed": [{"alternative": ["text/plain", "text/html"]}, "application/pdf"]}),
        ([LOGO], "<p>", {"alternative": ["text/plain", {"related": ["text/html", "image/png"]}]}),
        (
            [PDF, LOGO, PDF],
            "<p>",
            {
                "mixed": [
                    {"alternative": ["text/plain", {"related": ["text/html", "image/png"]}]},
                    "application/pdf",
                    "application/pdf",
                ]
            },
        ),
    ],
)
def test_parts_stand_as_mail_readers_want_them(files: list[File], html: str | None, shaped: object) -> None:
    content = with_files(*files, html=html).merge(7, "ada@example.org", {"field": "x"}, NOW).content
    message = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    assert shape(message) == shaped
    assert [part.defects for part in message.walk()] == [[] for _ in message.walk()]
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 200


@given(
    TEXT,
    st.binary(max_size=300),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"], exclude_characters="/\\"), min_size=1),
)
@example(value="", octets=b"", name=" ")
@example(value="", octets=b"", name=" a  b ")
@example(value="", octets=b"", name="<>")
@example(value="", octets=b"", name='"a"')
@example(value="", octets=b"", name="資料" * 100 + ".pdf")
@example(value="", octets=b"", name="Prüfbericht 🎉 " * 14)
@example(value="", octets=b"", name="long name " * 20 + ".pdf")
@example(value="", octets=b"", name="x" * 255)
@example(value="", octets=b"", name='"; x="' * 40)
@example(value="", octets=b"\r\n.\r\n", name="a \"quoted\" 'name'; x=y.pdf")
def test_files_arrive_as_they_were_whatever_the_message_says(value: str, octets: bytes, name: str) -> None:
    file = File(name=name, media_type="application/octet-stream", octets=octets)
    lookalike = f"{value}\n--=_postroad_mixed--\n--=_postroad_related--\n"
    content = with_files(file, LOGO).merge(7, "ada@example.org", {"field": lookalike}, NOW).content
    message = BytesParser(policy=policy.default).parsebytes(content)
    (attachment,) = message.iter_attachments()
    assert attachment.get_payload(decode=True) == octets
    assert attachment.get_content_disposition() == "attachment"
    # Not `get_filename`, which takes blanks, brackets and quotes from its ends.
    assert attachment["Content-Disposition"].params["filename"] == name
    named = re.search(rb"Content-Disposition: attachment;\r\n((?: .*\r\n)+)", content)
    assert named is not None
    assert max(map(len, named[1].split(b"\r\n"))) <= 78
    images = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert [(part["Content-ID"], part.get_payload(decode=True)) for part in images] == [("<logo.png>", LOGO.octets)]
    assert images[0].get_content_disposition() == "inline"


def test_a_file_is_encoded_once_and_not_for_every_message() -> None:
    message = with_files(PDF)
    fixed = [piece for piece in message.entity.body if isinstance(piece, StaticChunk)]
    assert base64.b64encode(PDF.octets)[:40] in fixed[-1].encoded


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("news@bücher.example", "news@xn--bcher-kva.example"),
        ("News.Letter@BÜCHER.example", "News.Letter@xn--bcher-kva.example"),
        ("jörg@bücher.example", "jörg@xn--bcher-kva.example"),
        ("news@example.com", "news@example.com"),
    ],
)
def test_domains_leave_in_ascii(address: str, written: str) -> None:
    identity = sender(address=address, reply_to=address, bounce_domain=None, display_name="")
    message = compiled(identity=identity).merge(7, "ada@example.org", {"field": "x"}, NOW)
    assert f"\r\nReply-To: {written}\r\n".encode() in message.content
    assert message.content.startswith(f"From: {written}\r\n".encode())
    assert message.return_path == written
    assert message.message_id.endswith(f"@{written.partition('@')[2]}>")
    assert message.content.isascii() == written.isascii()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("x" * 60 + ".pdf", ['filename="' + "x" * 60 + '.pdf"']),
        ("x" * 100, ['filename*0="' + "x" * 50 + '"', 'filename*1="' + "x" * 50 + '"']),
        ("ü" * 9, ["filename*=utf-8''" + "%C3%BC" * 9]),
        (
            "🎉" * 8,
            [
                "filename*0*=utf-8''" + "%F0%9F%8E%89" * 3,
                "filename*1*=" + "%F0%9F%8E%89" * 4,
                "filename*2*=%F0%9F%8E%89",
            ],
        ),
        ("a\nBcc: x@y\x00\udcff.pdf", ['filename="a Bcc: x@y .pdf"']),
    ],
)
def test_a_long_file_name_is_continued_between_its_characters(name: str, lines: list[str]) -> None:
    content = (
        with_files(File(name=name, media_type="text/plain", octets=b""))
        .merge(7, "a@b.example", {"field": ""}, NOW)
        .content
    )
    _, _, found = content.partition(b"Content-Disposition: attachment;\r\n ")
    field = re.split(rb"\r\n(?! )", found)[0].decode()
    assert field.split(";\r\n ") == lines
