"""Compiles the message of a step once for each sender and variant, and keeps it for all jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from postroad.campaign.message import StepKey, StepMessage, step_message
from postroad.clock import Clock
from postroad.delivery.job import AttachedFile
from postroad.errors import ConfigError
from postroad.mail.body import File
from postroad.mail.dkim import DkimSigner
from postroad.mail.token import TokenSigner
from postroad.settings import Service
from postroad.store.engine import read
from postroad.store.stored_file import stored_files

FAILED_STEP_MS = 60_000
"""How long the error of a step that could not be compiled is the result for all its jobs."""


class CompiledSteps:
    """The compiled steps of one worker."""

    def __init__(
        self,
        *,
        engine: sa.Engine,
        signer: TokenSigner,
        public_url: str,
        clock: Clock,
        dkim: Mapping[str, DkimSigner] | None = None,
        services: Mapping[str, Service] | None = None,
    ) -> None:
        """Set up an empty cache.

        Args:
            engine: The database of the campaigns.
            signer: Signs the tokens of a message.
            public_url: Address of the web server, for links.
            clock: Tells the time.
            dkim: Signer of messages by the name of the sender.
            services: Mail service by the name of the route.
        """
        self._engine = engine
        self._signer = signer
        self._public_url = public_url
        self._clock = clock
        self._dkim = dkim or {}
        self._services = services or {}
        self._steps: dict[tuple[int, int, int, str], asyncio.Task[StepMessage]] = {}
        # By step, sender, version and variant.
        self._failed_until_ms: dict[tuple[int, int, int, str], int] = {}

    async def get(self, step_id: int, sender_id: int, version: int = 1, variant: str = "") -> StepMessage:
        """Return a step. All jobs that need it during its compilation wait for that compilation.

        Args:
            step_id: The step.
            sender_id: The sender in place of the campaign's; 0: the campaign's.
            version: The version of the step that the job was made for.
            variant: The variant of the step; empty: the step has none.

        Raises:
            ConfigError: The step cannot be compiled. It is compiled again after `FAILED_STEP_MS` at the earliest.
        """
        key = step_id, sender_id, version, variant
        task = self._steps.get(key)
        if task is not None and task.done() and not task.cancelled():
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, ConfigError) or self._clock.now_ms() >= self._failed_until_ms.get(key, 0):
                task = None
        if task is None or task.cancelled():
            task = asyncio.create_task(asyncio.to_thread(self._load, *key))
            self._steps[key] = task
            self._failed_until_ms[key] = self._clock.now_ms() + FAILED_STEP_MS
        return await asyncio.shield(task)

    async def with_files(self, step: StepMessage, files: Sequence[AttachedFile]) -> StepMessage:
        """Return a step with further attachments, for one message.

        Args:
            step: The step.
            files: The files.

        Returns:
            The step; unchanged without files.

        Raises:
            ConfigError: A file is not in the database.
        """
        return await asyncio.to_thread(self._with_files, step, files) if files else step

    def _with_files(self, step: StepMessage, files: Sequence[AttachedFile]) -> StepMessage:
        with read(self._engine) as connection:
            octets = stored_files(connection, {file.digest for file in files})
        missing = [file.name for file in files if file.digest not in octets]
        if missing:
            raise ConfigError(f"the attachment {missing[0]!r} is not in the database")
        attached = [File(name=file.name, media_type=file.media_type, octets=octets[file.digest]) for file in files]
        return replace(step, message=step.message.with_files(attached))

    def _load(self, step_id: int, sender_id: int, version: int, variant: str) -> StepMessage:
        with read(self._engine) as connection:
            return step_message(
                connection,
                StepKey(step_id, sender_id or None, version, variant or None),
                self._signer,
                self._public_url,
                self._dkim,
                self._services,
            )
