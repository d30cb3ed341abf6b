"""The schema of prefect.yaml, as far as the bootstrap installs it.

An unknown key is refused: without it, the deployment would differ from what `prefect deploy --all` makes of the same
file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from postroad.errors import ConfigError
from postroad.settings import ZoneName


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScheduleSpec(Spec):
    """A schedule, with a slug as its key. It is a cron, because each installation would shift an interval."""

    slug: str
    cron: str
    timezone: ZoneName
    active: bool
    parameters: dict[str, Any] = Field(default_factory=dict)

    @property
    def cron_schedule(self) -> CronSchedule:
        return CronSchedule(cron=self.cron, timezone=self.timezone)


class LimitSpec(Spec):
    limit: int
    collision_strategy: ConcurrencyLimitStrategy
    grace_period_seconds: int


class PoolSpec(Spec):
    name: str
    work_queue_name: str
    job_variables: dict[str, Any] = Field(default_factory=dict)


class DeploymentSpec(Spec):
    name: str
    entrypoint: str
    work_pool: PoolSpec
    concurrency_limit: LimitSpec
    parameters: dict[str, Any] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    schedules: list[ScheduleSpec] = Field(default_factory=list)


class ProjectSpec(Spec):
    definitions: dict[str, Any] = Field(default_factory=dict)
    pull: list[Literal["nothing"]] = Field(max_length=0)
    deployments: list[DeploymentSpec]


def read(path: Path) -> ProjectSpec:
    """Read a prefect.yaml.

    Returns:
        Its content.

    Raises:
        ConfigError: It cannot be read or has an error. The message names the file and the field.
    """
    try:
        return ProjectSpec.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(str(error), where=str(path)) from error
