"""Applies campaigns whose files a program sends, and sends proofs."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import Base64Bytes, Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import MAX_ADDRESS, WITH_BODY, Answer, CallerParameter, CampaignName, Input, problems
from postroad.api.problems import FieldProblem, ProblemError, ProblemKind, invalid
from postroad.app.context import AppContext
from postroad.app.proof import MAX_PROOFS, ProofRequest, make_proofs, send_proofs
from postroad.campaign.apply import apply
from postroad.campaign.definition import read_campaign
from postroad.campaign.files import MAX_FILES_BYTES
from postroad.errors import ConfigError
from postroad.settings import AccessRole, FilesSettings
from postroad.store.campaign import Campaign, CampaignState

router = APIRouter(route_class=ApiRoute, tags=["campaigns"])

CAMPAIGN_FILE: Final = "campaign.yaml"
MAX_FILES: Final = 100
_MAX_BODY_BYTES: Final = 2 * MAX_FILES_BYTES
_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,3}$"


class FileInput(Input):
    """One file: as text, or in base64."""

    name: str = Field(pattern=_NAME, description="relative path", examples=[CAMPAIGN_FILE, "images/logo.png"])
    text: str | None = Field(default=None, examples=["name: spring\nsender: ada\n…"])
    content: Base64Bytes | None = Field(default=None, description="in base64, of a file that is not text")


class CampaignInput(Input):
    """A campaign.yaml and the files that it names."""

    files: list[FileInput] = Field(min_length=1, max_length=MAX_FILES)


class CampaignApplied(Answer):
    """A campaign that was applied."""

    campaign: str
    state: CampaignState


class ProofInput(Input):
    """Which proofs to send."""

    to: list[Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS)]] = Field(
        min_length=1, max_length=MAX_PROOFS, description="addresses of yours", examples=[["me@example.org"]]
    )
    recipient: str | None = Field(
        default=None, max_length=MAX_ADDRESS, description="the member that it is rendered for; unset: the first one"
    )
    step: str | None = Field(default=None, max_length=100, description="unset: every email step")


class ProofAnswer(Answer):
    """A proof, and what the server replied."""

    step: str
    recipient: str
    to: str
    message_id: str
    accepted: bool
    unknown: bool = Field(description="whether it was sent is not known")
    reply: str


class ProofsSent(Answer):
    """The proofs that were sent."""

    proofs: list[ProofAnswer]


@router.put("/campaigns/{name}", responses=problems(*WITH_BODY, ProblemKind.CONFLICT))
@needs(AccessRole.SEND, max_body_bytes=_MAX_BODY_BYTES)
async def apply_campaign(name: CampaignName, campaign: CampaignInput, caller: CallerParameter) -> CampaignApplied:
    """Create a campaign from its files, or bring it up to date. The steps of a launched one cannot change.

    One file is `campaign.yaml`, with this name. It may name only files that are sent with it, so that a key reads no
    file of the host, and no `audience.file`: add members by `POST /audiences/{name}/members`.
    """
    names = [file.name for file in campaign.files]
    if CAMPAIGN_FILE not in names:
        raise invalid("files", f"there is no file {CAMPAIGN_FILE}")
    if len(set(names)) < len(names):
        raise invalid("files", "two files have the same name")
    for index, file in enumerate(campaign.files):
        if (file.text is None) == (file.content is None):
            raise invalid(f"files.{index}", "it has either text or content")
    async with caller.act("campaign.apply", name) as act:
        act.count = 1
        applied = await asyncio.to_thread(_apply, caller.parts.context, name, campaign.files)
    return CampaignApplied(campaign=applied.name, state=applied.state)


def _apply(context: AppContext, name: str, files: list[FileInput]) -> Campaign:
    # Without the folders of the operator: the files of this request alone may be named.
    settings = context.settings.model_copy(update={"files": FilesSettings(allowed=())})
    settings._config_path = context.settings.config_path
    with tempfile.TemporaryDirectory(prefix="postroad-apply-") as folder:
        root = Path(folder)
        try:
            for file in files:
                path = root / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.content if file.content is not None else (file.text or "").encode())
            read = read_campaign(root / CAMPAIGN_FILE, settings)
            if read.definition.name != name:
                raise invalid("files", f"{CAMPAIGN_FILE} has the name {read.definition.name!r}, and the path {name!r}")
            if read.audience_file is not None:
                raise invalid("files", f"{CAMPAIGN_FILE} has audience.file, which is not used here")
            return apply(context.engine, settings, read, context.clock.now())
        except ConfigError as error:
            where = (error.where or "").replace(f"{root.resolve()}/", "").replace(f"{root}/", "")
            message = error.message.replace(f"{root.resolve()}/", "").replace(f"{root}/", "")
            fields = [FieldProblem(field=where or "files", message=message)]
            detail = f"{where}: {message}" if where else message
            raise ProblemError(ProblemKind.INVALID, detail, remedy=error.remedy, errors=fields) from None
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise invalid("files", "one name is a file and a folder") from None


@router.post("/campaigns/{name}/proof", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.SEND)
async def send_proof(name: CampaignName, proof: ProofInput, caller: CallerParameter) -> ProofsSent:
    """Send the messages of a campaign to yourself, as a recipient would get them. The campaign is not changed."""
    context = caller.parts.context
    request = ProofRequest(campaign=name, to=tuple(proof.to), address=proof.recipient, step=proof.step)
    proofs = await asyncio.to_thread(make_proofs, context, request, os.environ)
    async with caller.act("campaign.proof", name, first=True) as act:
        act.count = len(proofs)
        sent = await send_proofs(context, proofs)
    return ProofsSent(
        proofs=[
            ProofAnswer(
                step=one.proof.step,
                recipient=one.proof.recipient,
                to=one.proof.to,
                message_id=one.proof.message.message_id,
                accepted=one.attempt.accepted,
                unknown=one.attempt.unknown,
                reply=str(one.attempt),
            )
            for one in sent
        ]
    )
