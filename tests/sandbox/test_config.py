from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postroad.errors import ConfigError
from postroad.sandbox import (
    AuthMechanism,
    ConnectionEnding,
    Fault,
    RulePhase,
    RuleRate,
    RuleScope,
    SandboxConfig,
    SandboxRule,
    StorageMode,
    load_config,
)

WHOLE = """
directory = "inbox"
keep = "ledger"
port = 2525
certificate = "tls/chain.pem"
private_key = "/etc/key.pem"
credentials = { ann = "secret" }
auth_mechanisms = ["CRAM-MD5"]

[[rules]]
phase = "rcpt"
domain = "gmail.test"
over = { count = 20, per_ms = 1000, scope = "ip" }
fault = { reply = "gmail-unusual-rate" }

[[rules]]
phase = "dot"
every = 100
fault = { ending = "drop", keep = true }
"""


def test_a_file_says_everything_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.toml"
    path.write_text(WHOLE)
    assert load_config(path) == SandboxConfig(
        directory=str(tmp_path / "inbox"),
        keep=StorageMode.LEDGER,
        port=2525,
        certificate=str(tmp_path / "tls/chain.pem"),
        private_key="/etc/key.pem",
        credentials={"ann": "secret"},
        auth_mechanisms=(AuthMechanism.CRAM_MD5,),
        rules=(
            SandboxRule(
                phase=RulePhase.RCPT,
                domain="gmail.test",
                over=RuleRate(count=20, per_ms=1000, scope=RuleScope.IP),
                fault=Fault(reply="gmail-unusual-rate"),
            ),
            SandboxRule(phase=RulePhase.DOT, every=100, fault=Fault(ending=ConnectionEnding.DROP, keep=True)),
        ),
    )


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ('directory = "x"\nport = "2525"', r"sandbox\.toml: port", "Expected `int`"),
        ('directory = "x"\nprot = 2525', r"sandbox\.toml", "unknown field `prot`"),
        ("port = 2525", r"sandbox\.toml", "missing required field `directory`"),
        (
            'directory = "x"\n[[rules]]\nphase = "rcpt"\nfault = { reply = "gmail-unusal-rate" }',
            r"sandbox\.toml: rules\[0\]\.fault",
            "'gmail-unusal-rate' is neither a reply",
        ),
        (
            'directory = "x"\n[[rules]]\nphase = "lunch"\nfault = {}',
            r"sandbox\.toml: rules\[0\]\.phase",
            "Invalid enum value 'lunch'",
        ),
        (
            'directory = "x"\n[[rules]]\nphase = "mail"\nlocal_part = "a"\nfault = {}',
            r"sandbox\.toml: rules\[0\]",
            "at mail no recipient is known yet",
        ),
        ('directory = "x"\ncertificate = "c.pem"', r"sandbox\.toml", "come together"),
        ('directory = "x"\nrequire_tls = true', r"sandbox\.toml", "need a certificate"),
        ('directory = "x"\nrequire_auth = true', r"sandbox\.toml", "needs credentials"),
        ("directory = ", r"sandbox\.toml", "is not TOML"),
    ],
)
def test_an_error_names_the_file_and_the_field(tmp_path: Path, text: str, where: str, message: str) -> None:
    path = tmp_path / "sandbox.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"{where}: .*{message}"):
        load_config(path)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: The sandbox configuration cannot be read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: .*is not TOML"):
        load_config(tmp_path / "binary.toml")


def test_a_default_is_not_shared() -> None:
    made: list[Any] = [SandboxConfig(directory="a"), SandboxConfig(directory="b")]
    made[0].credentials["x"] = "y"
    assert made[1].credentials == {}
