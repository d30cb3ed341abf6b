"""postroad campaign proof: the messages of a campaign, in the operator's own mailbox."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, progress_bars
from postroad.errors import UsageError

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.app.proof import Proof, SentProof


def proof(
    name: Annotated[str, typer.Argument(help="Name of the campaign.")],
    to: Annotated[list[str] | None, typer.Option("--to", help="Address that gets the proofs; may be repeated.")] = None,
    as_address: Annotated[
        str | None, typer.Option("--as", help="Member of its audience to render for; unset: the first of its segment.")
    ] = None,
    step: Annotated[str | None, typer.Option(help="Name of an email step; unset: every one.")] = None,
    variant: Annotated[str | None, typer.Option(help="Name of a variant; unset: every one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the proofs to this folder (.eml) and send none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send every step and variant of a campaign to yourself, as a recipient would get it.

    A proof goes by the real route and DKIM key of the campaign's sender, at once and without the queue. Its subject
    begins with [proof]. It is in no count of the campaign, and its unsubscribe link, replies and bounces have no effect
    on the recipient that it is rendered for.

    Exits 1 if the server did not accept every proof, and shows each reply. An address that is suppressed gets none:
    exit code 7.
    """
    from postroad.app.proof import ProofRequest, make_proofs, send_proofs

    if not to and out is None:
        raise UsageError("no address is given", remedy="Add --to with your address, or --out with a folder.")

    async def work(context: AppContext) -> tuple[list[Proof], list[SentProof]]:
        request = ProofRequest(campaign=name, to=tuple(to or ()), address=as_address, step=step, variant=variant)
        proofs = await asyncio.to_thread(make_proofs, context, request, os.environ)
        if out is not None:
            return proofs, []
        with progress_bars(quiet=as_json) as bars:
            return proofs, await send_proofs(context, proofs, lambda done, total: bars("sending", done, total))

    proofs, sent = with_context(work)
    if out is not None:
        _show_written(name, list(zip(proofs, _write(out, name, proofs), strict=True)), as_json=as_json)
    else:
        _show_sent(name, sent, as_json=as_json)
    if not all(each.attempt.accepted for each in sent):
        raise typer.Exit(1)


def _write(folder: Path, name: str, proofs: list[Proof]) -> list[Path]:
    paths: list[Path] = []
    several = len({each.to for each in proofs}) > 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for proof_ in proofs:
            number = f"-{len(paths) + 1}" if several else ""
            content = proof_.step if proof_.variant is None else f"{proof_.step}.{proof_.variant}"
            path = folder / f"{name}-{content}{number}.eml"
            path.write_bytes(proof_.message.content)
            paths.append(path)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    return paths


def _show_written(name: str, written: list[tuple[Proof, Path]], *, as_json: bool) -> None:
    if as_json:
        print_json({"campaign": name, "proofs": [{**_described(each), "file": str(path)} for each, path in written]})
        return
    for each, path in written:
        print_line(f"{_content(each)} as {each.recipient} would see it: {path}")


def _show_sent(name: str, sent: list[SentProof], *, as_json: bool) -> None:
    if as_json:
        proofs = [
            {
                **_described(each.proof),
                "accepted": each.attempt.accepted,
                "unknown": each.attempt.unknown,
                "reply": str(each.attempt),
            }
            for each in sent
        ]
        print_json({"campaign": name, "proofs": proofs})
        return
    for each in sent:
        outcome = "accepted" if each.attempt.accepted else "unknown" if each.attempt.unknown else "not accepted"
        what = f"{_content(each.proof)} as {each.proof.recipient}, to {each.proof.to}"
        print_line(f"{what}: {outcome}: {each.attempt}")
    print_line(f"By route {sent[0].proof.route} from {sent[0].proof.sender}. The campaign is not changed.")


def _content(each: Proof) -> str:
    return f"step {each.step}" if each.variant is None else f"step {each.step}, variant {each.variant},"


def _described(each: Proof) -> dict[str, object]:
    return {
        "step": each.step,
        "variant": each.variant,
        "recipient": each.recipient,
        "to": each.to,
        "sender": each.sender,
        "route": each.route,
        "message_id": each.message.message_id,
        "size_bytes": len(each.message.content),
    }
