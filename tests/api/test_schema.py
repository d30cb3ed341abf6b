"""Schemathesis tries the API of a real server against its description: no failure, no answer outside the schema."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from postroad.api.app import MOUNT_PATH, create_routes, openapi
from postroad.api.problems import MEDIA_TYPE
from postroad.settings import AccessRole, RateSetting
from tests.api.installation import NEWS, RECEIPT, Installation
from tests.api.server import an_api_server

BUDGET_S = 40
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
)
ELSEWHERE = ("launchCampaign", "getLaunch", "sendProof")
"""Operations that need Prefect, or send mail to any address: other tests drive them."""


@pytest.mark.timeout(180)
async def test_no_answer_is_a_failure_or_outside_the_schema(installation: Installation, tmp_path: Path) -> None:
    fast = installation.context.settings.api.model_copy(update={"rate": RateSetting(count=10**6, per_ms=1_000)})
    installation.context.settings = installation.context.settings.model_copy(update={"api": fast})
    installation.launch(NEWS)
    installation.launch(RECEIPT)
    installation.add_members("ada@example.org")
    async with an_api_server(installation) as api:
        description = tmp_path / "openapi.json"
        async with api.client(AccessRole.VIEW) as http:
            described = (await http.get("/openapi.json")).json()
        description.write_text(json.dumps(described))
        # In one thread: with two, Python 3.11 may fail to parse a module that both read (SystemError of `ast.parse`).
        words = [
            *("run", str(description), "--url", f"{api.url}{MOUNT_PATH}", "--max-time", str(BUDGET_S)),
            *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)),
            *("--continue-on-failure", "--seed", "1", "--generation-database", "none"),
            *("--header", f"Authorization: Bearer {api.key(AccessRole.OWN)}", "--suppress-health-check", "all"),
            *(word for name in ELSEWHERE for word in ("--exclude-operation-id", name)),
        ]
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("schemathesis"),
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200"},
            cwd=tmp_path,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()[-8_000:]
        async with api.client(AccessRole.VIEW) as http:
            assert (await http.get("/campaigns")).status_code == 200


def test_every_operation_describes_its_answers_problems_and_examples() -> None:
    described = openapi(create_routes())
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) > 30
    for operation in operations:
        answers = operation["responses"]
        assert {"401", "403", "422", "429", "500", "503"} <= answers.keys(), operation["operationId"]
        assert all(MEDIA_TYPE in answer["content"] for code, answer in answers.items() if code >= "400")
        assert operation["description"], operation["operationId"]
        assert operation["x-scope"] in set(AccessRole)
    for name, schema in described["components"]["schemas"].items():
        assert schema.get("description"), name
    examples = [body for operation in operations if (body := operation.get("requestBody"))]
    assert len(examples) >= 10
