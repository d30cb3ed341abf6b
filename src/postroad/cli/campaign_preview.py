"""postroad campaign preview: what a step would send to one recipient."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, Styled, print_json, print_line, print_text
from postroad.errors import UsageError
from postroad.printable import counted

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.campaign.preview import Preview

NameArgument = Annotated[str, typer.Argument(help="Name of the campaign.")]


def preview(
    name: NameArgument,
    recipient: Annotated[
        str | None, typer.Option(help="Address of a member of its audience; unset: the first one of its segment.")
    ] = None,
    step: Annotated[str | None, typer.Option(help="Name of an email step; unset: the first one.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Name of a variant; unset: the one that the recipient gets.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the message to this file (.eml), as it would leave.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a step would send to one recipient: header, text, HTML and size. Nothing is sent.

    Its unsubscribe link has no effect. A mail reader can open the file that --out writes.
    """
    from postroad.campaign.preview import PreviewRequest
    from postroad.campaign.preview import preview as make_preview
    from postroad.mail.dkim_keys import load_signers

    async def work(context: AppContext) -> Preview:
        dkim = load_signers(context.settings, os.environ)
        return await asyncio.to_thread(
            lambda: make_preview(
                context.engine,
                context.settings,
                context.signer,
                dkim,
                PreviewRequest(campaign=name, step=step, address=recipient, variant=variant),
                now=context.clock.now(),
            )
        )

    seen = with_context(work)
    if out is not None:
        try:
            out.write_bytes(seen.content)
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    if as_json:
        print_json(
            {
                "campaign": name,
                "step": seen.step,
                "variant": seen.variant,
                "recipient": seen.recipient,
                "return_path": seen.return_path,
                "header": seen.header,
                "subject": seen.subject,
                "text": seen.text,
                "html": seen.html,
                "size_bytes": len(seen.content),
                "file": str(out) if out else None,
            }
        )
        return
    context = (("header", seen.header), ("subject", seen.encoded_subject), ("text", seen.text), ("HTML", seen.html))
    for title, part in context:
        if part is not None:
            print_line(Styled(title, "bold"))
            print_text(part.rstrip() + "\n")
    what = f"step {seen.step}{f', variant {seen.variant},' if seen.variant else ''}"
    size = f"{what} to {seen.recipient}: {counted(len(seen.content), 'byte')}, return path {seen.return_path}"
    print_line(f"{size}{f', written to {out}' if out else ''}")
