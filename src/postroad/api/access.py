"""Who calls, and whether their key may: the scope of every route, rate limits, and bounds of bodies and parameters.

Everything is checked before the body is parsed, so that a client without a key learns nothing of a route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute

from postroad.api.parts import ApiParts
from postroad.api.problems import FieldProblem, ProblemError, ProblemKind, invalid
from postroad.app.api_keys import authenticate
from postroad.app.recorded_act import recorded_act
from postroad.settings import AccessRole
from postroad.store.api_key import ApiKey
from postroad.store.audit import Actor, AuditedAct
from postroad.web.body import read_body

MAX_BODY_BYTES: Final = 1_000_000
BODY_WITHIN_S: Final = 30.0
_SCOPE: Final = "api_scope"
_MAX_BODY: Final = "api_max_body_bytes"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def needs(scope: AccessRole, *, max_body_bytes: int = MAX_BODY_BYTES) -> Callable[[Endpoint], Endpoint]:
    """Declare the scope that a key needs for an endpoint, and the largest body that it takes, in bytes."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _SCOPE, scope)
        setattr(endpoint, _MAX_BODY, max_body_bytes)
        return endpoint

    return declare


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The program that makes a request. ``origin``: its address."""

    key: ApiKey
    origin: str
    parts: ApiParts

    @property
    def name(self) -> str:
        """The name by which the audit log knows it."""
        return f"key {self.key.name}"

    def act(
        self, action: str, target: str, *, first: bool = False, note: str = ""
    ) -> AbstractAsyncContextManager[AuditedAct]:
        """Record an act in the audit log, in the transaction of the act.

        Args:
            action: What is done, such as ``campaign.pause``.
            target: What it is done to.
            first: Record it before the block, for an act outside the database.
            note: The reason that the caller gave.

        Returns:
            An asynchronous context manager, in whose block the act is done.
        """
        context = self.parts.context
        actor = Actor(name=self.name, origin=self.origin)
        act = AuditedAct(actor=actor, action=action, target=target, at=context.clock.now(), note=note)
        return recorded_act(context.engine, act, first=first)


class ApiRoute(APIRoute):
    """A route that declares its scope, and that only a key with this scope may use."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Set up the route.

        Args:
            path: Its path.
            endpoint: The function that answers, decorated by `needs`.
            options: As of FastAPI.

        Raises:
            LookupError: The endpoint declares no scope.
        """
        scope: AccessRole | None = getattr(endpoint, _SCOPE, None)
        if scope is None:
            raise LookupError(f"{endpoint.__qualname__} declares no scope")
        self.needed_scope = scope
        self._max_body_bytes: int = getattr(endpoint, _MAX_BODY)
        words = endpoint.__name__.split("_")
        options["operation_id"] = words[0] + "".join(word.capitalize() for word in words[1:])
        options["openapi_extra"] = {**(options.get("openapi_extra") or {}), "x-scope": scope.value}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which checks the request before FastAPI parses it."""
        handle = super().get_route_handler()
        known = {parameter.alias for parameter in self.dependant.query_params}

        async def guarded(request: Request) -> Response:
            parts: ApiParts = request.app.state.parts
            request.state.caller = await _caller_of(request, parts, self.needed_scope)
            _require_parameters(request, known)
            if self.body_field is not None:
                await _require_body(request, self._max_body_bytes)
            return await handle(request)

        return guarded


def caller_of(request: Request) -> Caller:
    """Return who makes a request that was authorised."""
    caller: Caller = request.state.caller
    return caller


async def _caller_of(request: Request, parts: ApiParts, needed: AccessRole) -> Caller:
    """Return who makes a request.

    Raises:
        ProblemError: There is no valid key, its scope does not include the route, or there are too many requests.
    """
    origin = parts.client_of(request)
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    key = None
    if kind.lower() == "bearer":
        key = await asyncio.to_thread(authenticate, parts.context.engine, text.strip(), parts.context.clock.now())
    if key is None:
        if wait_s := parts.limits.wait_without_key_s(origin):
            raise ProblemError(
                ProblemKind.RATE_LIMITED,
                "this address sent too many requests without a valid key",
                headers={"Retry-After": str(wait_s)},
            )
        raise ProblemError(
            ProblemKind.UNAUTHORIZED,
            "the header Authorization has no valid API key",
            remedy="Send `Authorization: Bearer KEY`. `postroad api-key create` makes a key.",
            headers={"WWW-Authenticate": 'Bearer realm="postroad"'},
        )
    wait_s = parts.limits.wait_s(key.prefix)
    request.state.rate_limit_headers = parts.limits.headers(key.prefix)
    if wait_s:
        raise ProblemError(
            ProblemKind.RATE_LIMITED,
            f"API key {key.name} made too many requests",
            remedy=f"Repeat the request after {wait_s} s.",
            headers={"Retry-After": str(wait_s)},
        )
    if not key.scope.includes(needed):
        raise ProblemError(
            ProblemKind.FORBIDDEN,
            f"this needs the scope {needed}, and API key {key.name} has {key.scope}",
            remedy="Make a key with this scope: `postroad api-key create`.",
        )
    return Caller(key=key, origin=origin, parts=parts)


def _require_parameters(request: Request, known: set[str]) -> None:
    """Raise ProblemError for parameters that the route does not have, that are repeated, or that contain a NUL."""
    given = [name for name, _ in request.query_params.multi_items()]
    faults = [
        *(FieldProblem(field=name[:100], message="there is no such parameter") for name in given if name not in known),
        *(FieldProblem(field=name, message="it is given twice") for name in known if given.count(name) > 1),
        *(
            FieldProblem(field=name, message="it contains a NUL character")
            for name, value in (*request.query_params.multi_items(), *request.path_params.items())
            if "\0" in str(value)
        ),
    ]
    if faults:
        remedy = f"This path has the parameters {', '.join(sorted(known))}." if known else "It has no parameters."
        detail = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:5])
        raise ProblemError(ProblemKind.INVALID, detail, remedy=remedy, errors=faults[:100])


async def _require_body(request: Request, max_bytes: int) -> None:
    """Read the body within its bounds. Raise ProblemError for one that is not JSON that a database can store."""
    body = await read_body(request, BODY_WITHIN_S, max_bytes=max_bytes)
    request._body = body  # FastAPI parses what was read here.
    try:
        content = msgspec.json.decode(body)
        has_nul = b"\\u0000" in body and _has_nul(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProblemError(ProblemKind.BAD_REQUEST, f"the body is not JSON: {error}") from None
    if has_nul:
        raise invalid("body", "it contains a NUL character")


def _has_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case list():
            return any(map(_has_nul, value))
        case dict():
            return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return False
