"""postroad.toml and the environment: errors name the line or the variable, and never quote secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.errors import ConfigError
from postroad.settings import RateSetting, Settings, find_config
from postroad.settings.origin import unknown_variables
from tests.settings.conftest import Load

GOOD = """
state_dir = "state"
public_url = "https://post.example.com"
time_zone = "Europe/Berlin"

[routes.relay]
host = "smtp.example.com"
port = 2525
ca_file = "certificates/ca.pem"

[senders.news]
address = "news@example.com"
postal_address = "1 High Street, Springfield"
route = "relay"
rate = "30/1h"

[queues."email:send"]
rate = "50/1s"
lease_ms = "90s"

[delivery]
horizon_ms = "5m"
"""


def test_settings_are_read(load: Load, tmp_path: Path) -> None:
    settings = load(GOOD)
    assert settings.zone.key == "Europe/Berlin"
    assert (settings.routes["relay"].host, settings.routes["relay"].port) == ("smtp.example.com", 2525)
    assert settings.senders["news"].rate == RateSetting(count=30, per_ms=3_600_000)
    assert settings.senders["news"].domain == "example.com"
    assert settings.queue("email:send").lease_ms == 90_000
    assert settings.delivery.horizon_ms == 300_000
    assert settings.delivery.expire_ms == 259_200_000
    assert settings.config_path == tmp_path / "postroad.toml"


def test_nothing_needs_to_be_set(load: Load, tmp_path: Path) -> None:
    for settings in (load(""), Settings.load()):
        assert settings.state_dir == tmp_path / ".postroad"
        assert settings.queue("email:send").rate == RateSetting(count=100, per_ms=1_000)
        assert settings.queue("anything").rate is None


def test_paths_are_relative_to_the_file(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = load(GOOD)
    assert settings.state_dir == tmp_path / "state"
    assert settings.base_dir == tmp_path
    assert settings.routes["relay"].ca_file == tmp_path / "certificates" / "ca.pem"


def test_absolute_paths_stay(load: Load) -> None:
    settings = load(GOOD.replace('"state"', '"/srv/state"').replace('"certificates/ca.pem"', '"/etc/ca.pem"'))
    assert settings.state_dir == Path("/srv/state")
    assert settings.routes["relay"].ca_file == Path("/etc/ca.pem")


def test_without_a_file_paths_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROAD_STATE_DIR", "there")
    settings = Settings.load()
    assert settings.config_path is None
    assert settings.state_dir == tmp_path / "there"
    assert settings.base_dir == tmp_path


def test_the_file_is_found_by_variable_or_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_config() is None
    (tmp_path / "postroad.toml").write_text('time_zone = "Asia/Tokyo"')
    assert find_config() == tmp_path / "postroad.toml"
    assert Settings.load().time_zone == "Asia/Tokyo"
    (tmp_path / "other.toml").write_text('time_zone = "Asia/Kolkata"')
    monkeypatch.setenv("POSTROAD_CONFIG", "other.toml")
    assert Settings.load().time_zone == "Asia/Kolkata"


def test_the_environment_wins_over_the_file(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_TIME_ZONE", "Asia/Tokyo")
    monkeypatch.setenv("POSTROAD_ROUTES__RELAY__PASSWORD", "hunter2")
    monkeypatch.setenv("POSTROAD_ROUTES__RELAY__PORT", "465")
    monkeypatch.setenv("POSTROAD_DELIVERY__HORIZON_MS", "1h")
    monkeypatch.setenv("POSTROAD_SENDERS__NEWS__RATE", "7/1m")
    monkeypatch.setenv("POSTROAD_CAMPAIGNS", '["one.yaml"]')
    settings = load(GOOD)
    relay = settings.routes["relay"]
    assert settings.time_zone == "Asia/Tokyo"
    assert (relay.port, relay.host) == (465, "smtp.example.com")
    assert relay.password is not None
    assert relay.password.get_secret_value() == "hunter2"
    assert settings.delivery.horizon_ms == 3_600_000
    assert settings.delivery.expire_ms == 259_200_000
    assert settings.senders["news"].rate == RateSetting(count=7, per_ms=60_000)
    assert settings.campaigns == ("one.yaml",)


WRONG = {
    "no TOML": ("time_zone = \n", "", "not TOML: .*line 1"),
    "no TOML further down": (GOOD + "[routes.relay]\n", "", "not TOML: .*(line 25|[Cc]annot)"),
    "an unknown field": ("time_zone = 'UTC'\ncolour = 1\n", ", line 2", "colour is not a setting of postroad.toml"),
    "an unknown section": ("\n[colours]\nred = 1\n", ", line 2", "colours is not a setting of postroad.toml"),
    "an unknown zone": ("\ntime_zone = 'Mars'\n", ", line 2", "time_zone: 'Mars' is not a time zone"),
    "a block without its type": ("alert_block = 'ops'\n", ", line 1", "alert_block: it must be the type and the name"),
    "an unknown level": ("log_level = 'LOUD'\n", ", line 1", "log_level: it must be 'DEBUG'"),
    "no web address": ("public_url = 'example.com'\n", ", line 1", "public_url: it must be a web address in ASCII"),
    "a web address in letters of no header": (
        "public_url = 'https://müller.example'\n",
        ", line 1",
        "public_url: it must be a web address in ASCII",
    ),
    "a web address longer than a line": (
        f"public_url = 'https://example.com/{'x' * 500}'\n",
        ", line 1",
        "public_url: .*at most 500",
    ),
    "a port out of range": (GOOD.replace("2525", "99999"), ", line 8", "routes.relay.port: .*65535"),
    "a port that is a word": (
        GOOD.replace("2525", "'smtp'"),
        ", line 8",
        "routes.relay.port: it must be a whole number",
    ),
    "no host": (GOOD.replace('host = "smtp.example.com"\n', ""), ", line 6", "routes.relay: it needs host"),
    "a mode that is none": (
        GOOD.replace("port = 2525", "tls = 'ssl'"),
        ", line 8",
        "routes.relay.tls: it must be 'none'",
    ),
    "a sender without a route": (
        GOOD.replace('route = "relay"\n', ""),
        ", line 11",
        "senders.news.route: .*missing",
    ),
    "a route that is not there": (
        GOOD.replace('route = "relay"', 'route = "fast"'),
        ", line 14",
        "senders.news.route: .*no route named 'fast'",
    ),
    "no address": (GOOD.replace("news@example.com", "news"), ", line 12", "senders.news.address: "),
    "two addresses": (
        GOOD.replace("news@example.com", "a@example.com,b@example.com"),
        ", line 12",
        "senders.news.address: ",
    ),
    "a NUL in an address": (
        GOOD.replace("news@example.com", "ne\\u0000ws@example.com"),
        ", line 12",
        "senders.news.address: ",
    ),
    "a long address": (
        GOOD.replace("news@example.com", "x" * 310 + "@example.com"),
        ", line 12",
        "senders.news.address: .*at most",
    ),
    "a reply-to that is none": (
        GOOD.replace('route = "relay"', 'route = "relay"\nreply_to = "us"'),
        ", line 15",
        "senders.news.reply_to: ",
    ),
    "a line end in a name": (
        GOOD.replace('route = "relay"', 'route = "relay"\nname = "A\\r\\nBcc: b@example.com"'),
        ", line 15",
        "senders.news.name: ",
    ),
    "a long name": (
        GOOD.replace('route = "relay"', f'route = "relay"\nname = "{"x" * 201}"'),
        ", line 15",
        "senders.news.name: ",
    ),
    "a NUL in a postal address": (
        GOOD.replace("Springfield", "Spring\\u0000field"),
        ", line 13",
        "senders.news.postal_address: ",
    ),
    "a long name of a sender": (GOOD.replace("news]", "x" * 101 + "]"), ", line ", "at most 100"),
    "no postal address": (GOOD.replace("1 High Street, Springfield", ""), ", line 13", "senders.news.postal_address: "),
    "a rate that is a number": (GOOD.replace('"30/1h"', "30"), ", line 15", "senders.news.rate: '30' is not a rate"),
    "a rate that is none": (GOOD.replace("30/1h", "fast"), ", line 15", "senders.news.rate: 'fast' is not a rate"),
    "a lease too short": (GOOD.replace("90s", "10ms"), ", line 19", "queues.email:send.lease_ms: .*1000"),
    "a horizon that is none": (GOOD.replace('"5m"', '"soon"'), ", line 22", "delivery.horizon_ms: 'soon' is not a dur"),
    "a horizon without end": (GOOD.replace('"5m"', f'"{"9" * 400}d"'), ", line 22", "delivery.horizon_ms: .*less"),
    "an expiry of nothing": (
        GOOD.replace('horizon_ms = "5m"', "expire_ms = -1"),
        ", line 22",
        "delivery.expire_ms: .*greater",
    ),
}


@pytest.mark.parametrize(("text", "where", "says"), WRONG.values(), ids=WRONG)
def test_an_invalid_setting_is_an_error_with_file_line_and_field(
    load: Load, tmp_path: Path, text: str, where: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(text)
    assert (caught.value.where or "").startswith(f"{tmp_path / 'postroad.toml'}{where}")


def test_all_faults_are_listed_misspelt_names_first(load: Load) -> None:
    text = GOOD.replace("address =", "addres =", 1).replace("2525", "'smtp'")
    with pytest.raises(ConfigError, match=r"addres is not a setting of .senders.news.") as caught:
        load(text)
    assert (caught.value.where or "").endswith("postroad.toml, line 12")
    remedy = (caught.value.remedy or "").splitlines()
    assert remedy[0].startswith("Did you mean 'address'")
    assert remedy[1:-1] == [
        "Also line 8: routes.relay.port: it must be a whole number.",
        "Also line 11: senders.news.address: it is missing.",
    ]


def test_faults_beyond_a_limit_are_counted(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("".join(f"a{number} = 1\n" for number in range(12)))
    assert "And 2 more." in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[senders]\n[senders.news] # us\naddres = 'a'\n", 3),
        ("[senders]\nnews.name = 'x'\nnews.addres = 'a'\n", 3),
        ("\n[senders]\nnews = {name = 'x', addres = 'a'}\n", 3),
        ("\nsenders.'news'.'addres' = 'a'\n", 2),
        ("state_dir = 'addres'\n\n[senders.news]\n# addres = 'b'\naddres = 'a'\n", 5),
    ],
)
def test_the_line_is_that_of_the_misspelt_key(load: Load, text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=r"addres is not a setting of .senders.news.") as caught:
        load(text)
    assert (caught.value.where or "").endswith(f", line {line}")


def test_a_misspelt_section_of_a_variable_names_the_variable(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_ROUTES__RELAZ__PASSWORD", "hunter2")
    with pytest.raises(ConfigError, match=r"routes.relaz: it needs host") as caught:
        load(GOOD)
    assert caught.value.where == "POSTROAD_ROUTES__RELAZ__PASSWORD"
    assert "Did you mean 'POSTROAD_ROUTES__RELAY__PASSWORD'?" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_unreadable_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="there is no such file") as caught:
        Settings.load()
    assert caught.value.where == str(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory") as caught:
        Settings.load(tmp_path)
    assert caught.value.where == str(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"not UTF-8: .* at byte 5"):
        Settings.load(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("POSTROAD_TIME_ZONE", "no", "time_zone: the value is not a time zone"),
        ("POSTROAD_TIME_ZONE", "Mars", "time_zone: the value is not a time zone"),
        ("POSTROAD_ROUTES__RELAY__PORT", "smtp", "routes.relay.port: "),
        ("POSTROAD_CAMPAIGNS", "one.yaml", "campaigns: .*JSON"),
        ("POSTROAD_ROUTES", '{"relay": ', "routes: .*JSON"),
        ("POSTROAD_ROUTES", '{"relay": {"port": "smtp"}}', "routes.relay.port: "),
    ],
)
def test_an_invalid_variable_is_an_error_with_its_name(
    load: Load, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=says) as caught:
        load(GOOD)
    assert caught.value.where == variable


SECRETS = """
redis_url = "redis://:hunter2@localhost/0"
database_url = "postgresql://me:hunter2@localhost/name"
secret_key = "hunter2"

[routes.relay]
host = "smtp.example.com"
username = "me"
password = "hunter2"
"""


def test_secrets_are_not_shown(load: Load) -> None:
    settings = load(SECRETS)
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "hunter2" not in shown
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == "hunter2"


@pytest.mark.parametrize(
    "mistake",
    [
        ("username", "user"),
        ('password = "hunter2"', 'password = ["hunter2"]'),
        ('secret_key = "hunter2"', "secret_key = ['hunter2']"),
    ],
)
def test_errors_do_not_show_secrets(load: Load, mistake: tuple[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(SECRETS.replace(*mistake))
    assert "hunter2" not in str(caught.value)


def test_an_unknown_sender_is_an_error_with_known_names(load: Load) -> None:
    settings = load(GOOD)
    assert settings.sender("news").route == "relay"
    with pytest.raises(ConfigError, match=r"no sender named 'shop' \(known: news"):
        settings.sender("shop")


def test_settings_do_not_change(load: Load) -> None:
    settings = load(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        settings.time_zone = "UTC"  # type: ignore[misc]


def test_variables_that_no_setting_reads_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGLEVEL", "TIME_ZON", "ROUTE__RELAY__PASSWORD", "WEB_PORT", "TIME_ZONE", "WEB__PORT", "CONFIG"):
        monkeypatch.setenv(f"POSTROAD_{name}", "hunter2")
    assert dict(unknown_variables(Settings, ["POSTROAD_CONFIG"])) == {
        "POSTROAD_LOGLEVEL": "Did you mean 'POSTROAD_LOG_LEVEL'?",
        "POSTROAD_ROUTE__RELAY__PASSWORD": "Did you mean 'POSTROAD_ROUTES__RELAY__PASSWORD'?",
        "POSTROAD_TIME_ZON": "Did you mean 'POSTROAD_TIME_ZONE'?",
        "POSTROAD_WEB_PORT": "Did you mean 'POSTROAD_WEB__PORT'?",
    }
