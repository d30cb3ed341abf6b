"""Attachments and images are read when the campaign is applied, and then available to every worker."""

from __future__ import annotations

from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from textwrap import indent

import pytest
import sqlalchemy as sa

from postroad.campaign import files
from postroad.campaign.definition import read_campaign
from postroad.campaign.file_access import FileRules
from postroad.campaign.message import StepKey, step_message
from postroad.campaign.plan import launch
from postroad.errors import ConfigError, StateError
from postroad.store.campaign import find_campaign, steps_of
from postroad.store.engine import read, write
from tests.campaign.checking import SIGNER
from tests.campaign.project import CAMPAIGN, NOW, TEXT, CampaignProject

PDF = b"%PDF-1.7 " + bytes(range(256))
PNG = b"\x89PNG\r\n\x1a\n"
HTML = '<p><img src="cid:logo.png">{{ name }}{{ unsubscribe_url }}{{ postal_address }}</p>'


def with_files(extra: str) -> str:
    return CAMPAIGN + indent(extra, "    ")


@pytest.fixture
def stocked(project: CampaignProject) -> CampaignProject:
    (project.folder / "terms.pdf").write_bytes(PDF)
    (project.folder / "images").mkdir()
    (project.folder / "images/logo.png").write_bytes(PNG)
    project.template("hello.html", HTML)
    project.fill(["a@example.com,,Ada"])
    return project


BOTH = "html: hello.html\nattachments: [terms.pdf]\ninline: [images/logo.png]\n"


def merged(project: CampaignProject) -> EmailMessage:
    with read(project.engine) as connection:
        campaign = find_campaign(connection, "spring")
        (step,) = steps_of(connection, campaign.id or 0)
        message = step_message(connection, StepKey(step.id or 0), SIGNER, "https://post.example.com").message
    content = message.merge(1, "a@example.com", {"name": "Ada"}, NOW).content
    found = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(found, EmailMessage)
    return found


def test_a_worker_without_the_folder_has_the_files(stocked: CampaignProject) -> None:
    stocked.apply(with_files(BOTH))
    for path in ("terms.pdf", "images/logo.png", "hello.html"):
        (stocked.folder / path).unlink()
    found = merged(stocked)
    (attachment,) = found.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content_type()) == ("terms.pdf", "application/pdf")
    assert attachment.get_payload(decode=True) == PDF
    (image,) = (part for part in found.walk() if part.get_content_type() == "image/png")
    assert (image["Content-ID"], image.get_payload(decode=True)) == ("<logo.png>", PNG)


def test_names_types_and_content_ids_can_be_chosen(stocked: CampaignProject) -> None:
    stocked.template("hello.html", HTML.replace("cid:logo.png", "cid:brand"))
    stocked.apply(
        with_files(
            "html: hello.html\n"
            "attachments:\n  - {file: terms.pdf, name: Bedingungen für Sie.pdf, type: application/x-terms}\n"
            "inline: [{file: images/logo.png, cid: brand}]\n"
        )
    )
    found = merged(stocked)
    (attachment,) = found.iter_attachments()
    assert attachment.get_filename() == "Bedingungen für Sie.pdf"
    assert attachment.get_content_type() == "application/x-terms"
    assert [part["Content-ID"] for part in found.walk() if part["Content-ID"]] == ["<brand>"]


def test_a_file_of_several_steps_is_stored_once(stocked: CampaignProject) -> None:
    again = "  - email: again\n    subject: Again\n    text: hello.txt\n    attachments: [terms.pdf]\n"
    for _ in range(2):
        stocked.apply(with_files(BOTH) + again)
    with read(stocked.engine) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM stored_file")).scalar_one() == 2


def test_a_file_that_changed_is_a_change_of_its_step(stocked: CampaignProject) -> None:
    stocked.apply(with_files(BOTH))
    launch(stocked.engine, "spring", NOW)
    stocked.apply(with_files(BOTH))
    with write(stocked.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'accepted'"))
    (stocked.folder / "terms.pdf").write_bytes(PDF + b"!")
    with pytest.raises(StateError, match="the content of step 'hello' cannot change"):
        stocked.apply(with_files(BOTH))


def test_a_file_missing_in_the_database_is_an_error(stocked: CampaignProject) -> None:
    stocked.apply(with_files(BOTH))
    with write(stocked.engine) as connection:
        connection.execute(sa.text("DELETE FROM stored_file"))
    with pytest.raises(StateError, match="a file of campaign spring, step hello is not in the database"):
        merged(stocked)


def read_step(folder: Path, extra: str) -> None:
    (folder / "hello.txt").write_text(TEXT, encoding="utf-8")
    (folder / "campaign.yaml").write_text(with_files(extra).lstrip(), encoding="utf-8")
    read_campaign(folder / "campaign.yaml")


@pytest.mark.parametrize(
    ("extra", "says", "field"),
    [
        ("attachments: [terms.pdf]\n", "there is no file .*terms.pdf", "steps.1.attachments.1"),
        ("attachments: [a.txt, terms.pdf]\n", "there is no file .*terms.pdf", "steps.1.attachments.2"),
        ("attachments: [.]\n", "cannot be read: Is a directory", "steps.1.attachments.1"),
        ("html: h.html\ninline: [nothing.png]\n", "there is no file .*nothing.png", "steps.1.inline.1"),
        ("html: h.html\n", "the HTML shows cid:logo, but no inline image", "steps.1.inline"),
        (
            "html: h.html\ninline: [{file: a.txt, cid: logo}, {file: a.txt, cid: logo}]\n",
            "the same cid",
            "steps.1.inline",
        ),
        ("html: h.html\ninline: [ü.png]\n", "cannot be a cid", "steps.1.inline.1"),
        ("inline: [a.txt]\n", "inline images are for html or mjml", ""),
        ("html: h.html\nmjml: h.html\n", "html and mjml exclude each other", ""),
        ("attachments: [{file: a.txt, type: pdf}]\n", "attachments.1.type: it must be", ""),
        ("attachments: [{file: a.txt, type: 'a/b\\r\\nX: y'}]\n", "attachments.1.type: it must be", ""),
        ('attachments: [{file: a.txt, name: "a\\nb"}]\n', "attachments.1.name: it must be", ""),
        ("attachments: [{name: a.txt}]\n", "attachments.1.file: it is missing", ""),
        ("mjml: a.txt\n", "not valid MJML", "steps.1, mjml, line 1"),
        ("html: style.html\n", "between the attributes", "steps.1, html, line 2"),
    ],
)
def test_a_fault_of_an_attachment_names_file_line_and_field(tmp_path: Path, extra: str, says: str, field: str) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "ü.png").write_bytes(PNG)
    (tmp_path / "h.html").write_text('<img src="cid:logo">')
    (tmp_path / "style.html").write_text("<style>p{}</style>\n<p {{ x }}>")
    with pytest.raises(ConfigError, match=says) as caught:
        read_step(tmp_path, extra)
    where = caught.value.where or ""
    assert where.startswith(f"{tmp_path / 'campaign.yaml'}, line ")
    assert where.endswith(field)


def test_files_of_a_step_have_a_common_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES_BYTES", 100)
    (tmp_path / "a.bin").write_bytes(b"x" * 60)
    (tmp_path / "b.bin").write_bytes(b"x" * 40)
    read_step(tmp_path, "attachments: [a.bin, b.bin]\n")
    with pytest.raises(ConfigError, match="more than 100 bytes") as caught:
        read_step(tmp_path, "attachments: [a.bin, b.bin, a.bin]\n")
    assert (caught.value.where or "").endswith("steps.1.attachments.3")


@pytest.mark.parametrize("name", ["mail.eml", "page.mhtml", "thing", "archive.tar.gz", "x.unknown"])
def test_composite_and_unknown_types_are_sent_as_octet_stream(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    wanted = files.AttachmentDefinition(file=Path(name))
    found = files.read_step_files(tmp_path, FileRules(folders=(tmp_path,)), (wanted,), (), where="t")
    assert found.settings["files"][0]["type"] == "application/octet-stream"
