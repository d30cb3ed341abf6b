"""postroad dkim: keys that sign mail, and the DNS records that receivers check them by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from postroad.cli.names import named_sender
from postroad.cli.output import JsonOption, print_json, print_line, print_text
from postroad.errors import DataError, StateError, UsageError
from postroad.mail.address import domain_of, normalise_address
from postroad.mail.dkim import Algorithm, DkimKey, generate_key, parse_key, txt_strings, zone_line
from postroad.mail.dkim_keys import load_keys
from postroad.settings import DkimSettings, Settings

app = typer.Typer(help="DKIM: make keys, and show the DNS records to publish.", no_args_is_help=True)

_ALGORITHMS = {"rsa": Algorithm.RSA, "ed25519": Algorithm.ED25519}


@app.command("keygen")
def keygen(
    domain: Annotated[str, typer.Option(help="Domain of the sender's address.")],
    selector: Annotated[str, typer.Option(help="Name of the key below that domain, such as 2027a.")],
    out: Annotated[
        Path, typer.Option(help="File to write the private key to; it must not exist yet. Its folder is made.")
    ],
    algorithm: Annotated[str, typer.Option(help="rsa (2048 bits, which every receiver checks) or ed25519.")] = "rsa",
    as_json: JsonOption = False,
) -> None:
    """Make a key, for its owner's eyes only, and show the DNS record to publish before it signs."""
    if algorithm not in _ALGORITHMS:
        raise UsageError(f"{algorithm!r} is no algorithm of DKIM", remedy="Name rsa or ed25519.")
    try:
        DkimSettings(selector=selector, key_file=out)
    except ValueError:
        raise UsageError(f"{selector!r} cannot be a selector: it is letters, digits and hyphens") from None
    pem = generate_key(_ALGORITHMS[algorithm])
    domain = _read_domain(domain)
    key = DkimKey(domain=domain, selector=selector, private_key=parse_key(pem, where=str(out)))
    try:
        out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out.parent} cannot be made: {error.strerror}") from None
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise StateError(f"{out} is there already, and a key is never written over", remedy="Name another.") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    if as_json:
        print_json({**_record(key), "key_file": str(out)})
        return
    print_line(f"The private key is in {out}. Publish:")
    print_line()
    _show(key)
    print_line()
    print_line("Then let a sender sign with it:")
    print_line()
    entry = f'[[senders.NAME.dkim]]\nselector = "{selector}"\nkey_file = "{out}"'
    print_text(entry)


def _read_domain(text: str) -> str:
    try:
        return domain_of(normalise_address(f"postmaster@{text}"))
    except DataError as error:
        raise UsageError(f"{text!r} is no domain: {error.message}") from None


@app.command("record")
def record(
    sender: Annotated[str, typer.Argument(help="Name of the sender in postroad.toml.")], as_json: JsonOption = False
) -> None:
    """Show the DNS record of each key of a sender."""
    keys = load_keys(sender, named_sender(Settings.load(), sender), os.environ)
    if as_json:
        print_json([_record(key) for key in keys])
        return
    if not keys:
        print_line(f"Sender {sender} has no key; `postroad dkim keygen` makes one.")
    for key in keys:
        since = f", from {key.active_from:%Y-%m-%d %H:%M} UTC" if key.active_from else ""
        print_line(f"{key.algorithm}, selector {key.selector}{since}")
        _show(key)


def _record(key: DkimKey) -> dict[str, Any]:
    return {
        "algorithm": key.algorithm,
        "selector": key.selector,
        "since": key.active_from,
        "name": key.record_name,
        "type": "TXT",
        "value": key.record,
        "strings": txt_strings(key.record),
        "zone": zone_line(key),
    }


def _show(key: DkimKey) -> None:
    for line in (
        f"name   {key.record_name}",
        "type   TXT",
        f"value  {key.record}",
        "",
        "In a zone file:",
        zone_line(key),
    ):
        print_line(line)
