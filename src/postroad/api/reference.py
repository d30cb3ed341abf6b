"""Writes the reference of the API from its description: `python -m postroad.api.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from postroad.api.app import MOUNT_PATH, create_routes, openapi
from postroad.api.problems import PROBLEMS

_HEAD = f"""# HTTP API

This page is made of the API's description, which `GET {MOUNT_PATH}/openapi.json` returns in OpenAPI 3.1.
`postroad console` serves the API. [How a program sends messages](../how-to/send-messages-from-a-program.md).

**Keys.** Every request has the header `Authorization: Bearer KEY`. `postroad api-key create NAME --scope SCOPE` makes a
key. Each scope includes those before it: `view`, `send`, `operate`, `own`.

**Lists** are in pages. `limit` is at most 1,000. Send `next` of a page as `cursor` of the next one, with the same
parameters. A cursor names the last row and is signed: rows that are inserted meanwhile neither repeat nor skip others.

**Limits.** `RateLimit-Policy` and `RateLimit` have the limit of the key and what is left of it
([`[api]`](settings.md#api)). `Retry-After` has the seconds after which to repeat a request. A body has at most 1 MB, a
list of events, members or consents 10 MB, a message 14 MB. Parameters and fields that an operation does not have are
refused.

**Times** are in UTC (RFC 3339). A time of a request has its zone.

**Acts** are in the audit log, in the transaction of the act, with the name of the key.

**Problems** are `application/problem+json` (RFC 9457). `errors` names the fields that are not valid.
"""


def reference() -> str:
    """Return the page."""
    described = openapi(create_routes())
    return "\n".join([_HEAD, *_problems(), *_operations(described), *_schemas(described)]).rstrip() + "\n"


def _problems() -> Iterator[str]:
    yield from ("| type | status | title |", "|---|---|---|")
    for kind, (status, title) in PROBLEMS.items():
        yield f"| `urn:postroad:problem:{kind}` | {status.value} | {title} |"
    yield ""


def _operations(described: dict[str, Any]) -> Iterator[str]:
    yield from ("## Operations", "")
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            yield from (
                f"### `{method.upper()} {path}`",
                "",
                f"Scope `{operation['x-scope']}`. {operation['description']}",
                "",
            )
            if parameters := operation.get("parameters"):
                yield from ("| parameter | | |", "|---|---|---|")
                for parameter in parameters:
                    need = "required" if parameter.get("required") else "optional"
                    text = _cell(parameter.get("description", ""))
                    yield f"| `{parameter['name']}` | {parameter['in']}, {need} | {text} |"
                yield ""
            if body := operation.get("requestBody"):
                yield from (f"Body: {_type(body['content']['application/json']['schema'])}", "")
            for code, answer in operation["responses"].items():
                if code < "300":
                    media, content = next(iter(answer["content"].items()))
                    yield from (
                        f"Answer {code}: {_type(content['schema']) if media == 'application/json' else f'`{media}`'}",
                        "",
                    )


def _schemas(described: dict[str, Any]) -> Iterator[str]:
    yield from ("## Schemas", "")
    for name, schema in sorted(described["components"]["schemas"].items()):
        yield from (f"### {name}", "", schema.get("description", ""), "")
        if "enum" in schema:
            yield from (", ".join(f"`{value}`" for value in schema["enum"]), "")
        if properties := schema.get("properties"):
            required = schema.get("required", [])
            yield from ("| field | type | |", "|---|---|---|")
            for field, part in properties.items():
                need = "" if field in required else "optional. "
                yield f"| `{field}` | {_type(part)} | {need}{_cell(part.get('description', ''))} |"
            yield ""


def _type(schema: dict[str, Any]) -> str:
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf"):
        return " or ".join(_type(option) for option in options)
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema['items'])}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {_type(schema['additionalProperties'])}"
        case str() as kind:
            return f"{kind}, {schema['format']}" if "format" in schema else kind
    return "any"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
