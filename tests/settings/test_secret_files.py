"""Every secret setting can come from a file that a variable names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from postroad.errors import ConfigError
from postroad.settings import Settings
from postroad.settings.origin import unknown_variables
from tests.settings.conftest import Load

RELAY = """
[routes.relay]
host = "smtp.example.com"
username = "ada"
"""
WEBHOOK = """
[webhooks_out.shop]
url = "https://shop.example.com/hooks"
"""
WriteSecret = Callable[[str, bytes | None], Path]
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def write_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteSecret:
    """Set a variable to the path of a file with this content."""

    def write(variable: str, content: bytes | None) -> Path:
        path = tmp_path / variable.lower()
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setenv(variable, str(path))
        return path

    return write


def test_a_secret_comes_from_a_file_without_its_line_break(load: Load, write_secret: WriteSecret) -> None:
    write_secret("POSTROAD_REDIS_URL_FILE", b"rediss://postroad:p%40ss@queue/0\n")
    write_secret("POSTROAD_DATABASE_URL_FILE", b"postgresql://postroad@db/postroad\r\n")
    write_secret("POSTROAD_SECRET_KEY_FILE", b" key with spaces ")
    write_secret("POSTROAD_ROUTES__RELAY__PASSWORD_FILE", "pässword\n\n".encode())
    settings = load(RELAY)
    shown = [settings.redis_url, settings.database_url, settings.secret_key, settings.routes["relay"].password]
    assert [value and value.get_secret_value() for value in shown] == [
        "rediss://postroad:p%40ss@queue/0",
        "postgresql://postroad@db/postroad",
        " key with spaces ",
        "pässword\n",
    ]
    assert list(unknown_variables(Settings, [])) == []


def test_a_list_of_secrets_has_one_in_each_line(load: Load, write_secret: WriteSecret) -> None:
    write_secret("POSTROAD_SECRET_KEYS_FILE", b"new\n\nold\n")
    write_secret("POSTROAD_WEBHOOKS_OUT__SHOP__SECRETS_FILE", f"{SIGNING}\n{SIGNING[:-4]}AAAA\n".encode())
    settings = load(WEBHOOK)
    assert [key.get_secret_value() for key in settings.secret_keys] == ["new", "old"]
    assert [key.get_secret_value() for key in settings.webhooks_out["shop"].secrets] == [SIGNING, SIGNING[:-4] + "AAAA"]


def test_a_setting_that_is_itself_a_file_stays_one(load: Load, write_secret: WriteSecret) -> None:
    path = write_secret("POSTROAD_WEBHOOKS_OUT__SHOP__SECRET_FILE", f"{SIGNING}\n".encode())
    settings = load(WEBHOOK)
    assert (settings.webhooks_out["shop"].secret_file, settings.webhooks_out["shop"].secret) == (path, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"", "has no content"),
        (b"\n", "has no content"),
        (b"\xff", "is not UTF-8"),
        (b"x" * 70_000, "is longer than 65536 bytes"),
    ],
)
def test_a_file_without_a_secret_is_an_error_with_the_variable(
    load: Load, write_secret: WriteSecret, content: bytes | None, says: str
) -> None:
    write_secret("POSTROAD_REDIS_URL_FILE", content)
    with pytest.raises(ConfigError, match=says) as caught:
        load("")
    assert caught.value.where == "POSTROAD_REDIS_URL_FILE"


def test_a_secret_that_is_set_twice_is_an_error(
    load: Load, write_secret: WriteSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secret("POSTROAD_REDIS_URL_FILE", b"redis://one")
    monkeypatch.setenv("POSTROAD_REDIS_URL", "redis://two")
    with pytest.raises(ConfigError, match="POSTROAD_REDIS_URL and POSTROAD_REDIS_URL_FILE are both set"):
        load("")


def test_an_invalid_secret_in_a_file_is_an_error_with_the_variable_and_without_the_secret(
    load: Load, write_secret: WriteSecret
) -> None:
    write_secret("POSTROAD_WEBHOOKS_OUT__SHOP__SECRETS_FILE", b"hunter2-hunter2\n")
    with pytest.raises(ConfigError) as caught:
        load(WEBHOOK)
    assert "POSTROAD_WEBHOOKS_OUT__SHOP__SECRETS_FILE" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_only_secrets_come_from_files(load: Load, write_secret: WriteSecret) -> None:
    write_secret("POSTROAD_TIME_ZONE_FILE", b"Asia/Tokyo")
    assert load("").time_zone == "UTC"
    assert [name for name, _ in unknown_variables(Settings, [])] == ["POSTROAD_TIME_ZONE_FILE"]
