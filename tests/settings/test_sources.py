"""Mailboxes of bounces and the inbound server: valid and invalid settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.errors import ConfigError
from tests.settings.conftest import Load

GOOD = """
[inbound]
smtp = ""
lmtp = "unix:run/lmtp"
certificate = "in.pem"

[bounce.sources.box]
kind = "maildir"
path = "mail/bounces"

[bounce.sources.replies]
kind = "imap"
host = "imap.example.com"
username = "hello@example.com"
"""


def test_a_password_comes_from_the_environment_and_paths_are_the_files(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROAD_BOUNCE__SOURCES__REPLIES__PASSWORD", "sesame")
    settings = load(GOOD)
    box, replies = settings.bounce.sources["box"], settings.bounce.sources["replies"]
    assert box.path == tmp_path / "mail" / "bounces"
    assert replies.password is not None
    assert replies.password.get_secret_value() == "sesame"
    assert "sesame" not in repr(settings)
    assert (settings.inbound.smtp, settings.inbound.lmtp) == (None, f"unix:{tmp_path}/run/lmtp")
    assert settings.inbound.certificate == tmp_path / "in.pem"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[bounce.sources.a]\nkind = "maildir"', "needs its path"),
        ('[bounce.sources.a]\nkind = "maildir"\npath = "x"\nhost = "h"', "has no host"),
        ('[bounce.sources.a]\nkind = "imap"\nhost = "h"', "needs host and username"),
        ('[bounce.sources.a]\nkind = "imap"\nhost = "h"\nusername = "u"\npath = "x"', "has no path"),
        ('[bounce.sources.a]\nkind = "imap"\nhost = "h"\nusername = "u"\ntls = "none"', "clear_text_login"),
        ('[bounce.sources.a]\nkind = "imap"\nhost = "h"\nusername = "u"\ntls = "opportunistic"', "opportunistic"),
        (
            '[bounce.sources.a]\nkind = "imap"\nhost = "h"\nusername = "u"\nmove_to = "x"\ndelete = true',
            "exclude each other",
        ),
        ('[bounce.sources.a]\nkind = "imap"\nhost = "h"\nusername = "u"\nmailbox = "x\\r\\ny"', "mailbox"),
        ('[bounce.sources.a]\nkind = "pop3"', "kind"),
        ('[inbound]\nsmtp = ""', "no address is set"),
        ('[inbound]\nsmtp = "25"', "smtp"),
        ('[inbound]\nprivate_key = "x"', "needs a certificate"),
    ],
)
def test_contradicting_settings_are_an_error(load: Load, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(text)
