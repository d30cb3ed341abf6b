"""Errors of the API as problem details (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from postroad.app.message_order import FieldError, KeyReusedError
from postroad.errors import (
    DataError,
    PostroadError,
    PreflightError,
    StateError,
    UnavailableError,
    UsageError,
)

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 10
"""When a client may repeat a request that a missing server prevented."""


class ProblemKind(StrEnum):
    """The kind of a problem. Its type is a URN with this word."""

    BAD_REQUEST = "bad-request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    TOO_SLOW = "too-slow"
    CONFLICT = "conflict"
    PREFLIGHT_FAILED = "preflight-failed"
    TOO_LARGE = "too-large"
    INVALID = "invalid"
    KEY_REUSED = "idempotency-key-reused"
    RATE_LIMITED = "rate-limited"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"


PROBLEMS: Final[Mapping[ProblemKind, tuple[HTTPStatus, str]]] = {
    ProblemKind.BAD_REQUEST: (HTTPStatus.BAD_REQUEST, "The request is not well-formed"),
    ProblemKind.UNAUTHORIZED: (HTTPStatus.UNAUTHORIZED, "A valid API key is required"),
    ProblemKind.FORBIDDEN: (HTTPStatus.FORBIDDEN, "The scope of the API key does not include this"),
    ProblemKind.NOT_FOUND: (HTTPStatus.NOT_FOUND, "What the request names does not exist"),
    ProblemKind.METHOD_NOT_ALLOWED: (HTTPStatus.METHOD_NOT_ALLOWED, "This path does not have this method"),
    ProblemKind.TOO_SLOW: (HTTPStatus.REQUEST_TIMEOUT, "The body arrived too slowly"),
    ProblemKind.CONFLICT: (HTTPStatus.CONFLICT, "This is not possible in the current state"),
    ProblemKind.PREFLIGHT_FAILED: (HTTPStatus.CONFLICT, "The campaign fails preflight"),
    ProblemKind.TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    ProblemKind.INVALID: (HTTPStatus.UNPROCESSABLE_ENTITY, "The request is not valid"),
    ProblemKind.KEY_REUSED: (HTTPStatus.UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request"),
    ProblemKind.RATE_LIMITED: (HTTPStatus.TOO_MANY_REQUESTS, "There are too many requests"),
    ProblemKind.INTERNAL: (HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed"),
    ProblemKind.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "A part of Postroad is unavailable"),
}
"""Status and title of each kind."""


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="path of the field, as in `fields.amount` or `3.at`", examples=["fields.amount"])
    message: str = Field(description="what is wrong", examples=["it is not a number"])


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(description="URN of the kind of problem", examples=["urn:postroad:problem:invalid"])
    title: str = Field(description="the kind of problem in words", examples=["The request is not valid"])
    status: int = Field(description="HTTP status", examples=[422])
    detail: str = Field(description="what is wrong with this request", examples=["fields.amount: it is not a number"])
    remedy: str | None = Field(default=None, description="what to do about it")
    errors: list[FieldProblem] = Field(default=[], description="what is wrong, by field")


class ProblemError(Exception):
    """A request that is answered with a problem."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        remedy: str | None = None,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.remedy = remedy
        self.errors = errors
        self.headers = headers

    def response(self) -> Response:
        """Return the answer."""
        status, title = PROBLEMS[self.kind]
        problem = Problem(
            type=f"urn:postroad:problem:{self.kind}",
            title=title,
            status=status,
            detail=self.detail,
            remedy=self.remedy,
            errors=list(self.errors),
        )
        body = problem.model_dump_json(exclude_none=True)
        return Response(body, status, headers=dict(self.headers or {}), media_type=MEDIA_TYPE)


def invalid(field: str, message: str, *, remedy: str | None = None) -> ProblemError:
    """Return the problem of one field that is not valid."""
    fields = [FieldProblem(field=field, message=message)]
    return ProblemError(ProblemKind.INVALID, f"{field}: {message}", remedy=remedy, errors=fields)


def add_handlers(app: FastAPI) -> None:
    """Answer every error of an application with a problem."""
    handlers: dict[Any, Any] = {
        ProblemError: _problem,
        PostroadError: _postroad_error,
        RequestValidationError: _not_valid,
        HTTPException: _http_error,
        Exception: _unexpected,
    }
    for error, handler in handlers.items():
        app.add_exception_handler(error, handler)


async def _problem(_request: Request, error: ProblemError) -> Response:
    return error.response()


async def _postroad_error(_request: Request, error: PostroadError) -> Response:
    return problem_of(error).response()


def problem_of(error: PostroadError) -> ProblemError:
    """Return the problem of an error of ours."""
    detail = f"{error.where}: {error.message}" if error.where else error.message
    match error:
        case KeyReusedError():
            kind = ProblemKind.KEY_REUSED
        case FieldError() | UsageError() | DataError():
            kind = ProblemKind.INVALID
        case PreflightError():
            kind = ProblemKind.PREFLIGHT_FAILED
        case StateError():
            kind = ProblemKind.NOT_FOUND if error.missing else ProblemKind.CONFLICT
        case UnavailableError():
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            return ProblemError(ProblemKind.UNAVAILABLE, detail, remedy=error.remedy, headers=headers)
        case _:
            log.error("a request failed because of the configuration: %s", error)
            kind = ProblemKind.INTERNAL
    fields = [FieldProblem(field=error.field, message=error.message)] if isinstance(error, FieldError) else []
    return ProblemError(kind, detail, remedy=error.remedy, errors=fields)


async def _not_valid(_request: Request, error: RequestValidationError) -> Response:
    fields = [
        FieldProblem(field=".".join(map(str, fault["loc"][1:])) or str(fault["loc"][0]), message=fault["msg"])
        for fault in error.errors()[:100]
    ]
    detail = "; ".join(f"{fault.field}: {fault.message}" for fault in fields[:5])
    return ProblemError(ProblemKind.INVALID, detail[:2_000], errors=fields).response()


_OF_STATUS: Final = {status: kind for kind, (status, _) in reversed(list(PROBLEMS.items()))}


async def _http_error(_request: Request, error: HTTPException) -> Response:
    kind = _OF_STATUS.get(HTTPStatus(error.status_code), ProblemKind.BAD_REQUEST)
    detail = "there is no such path" if kind is ProblemKind.NOT_FOUND else str(error.detail)
    return ProblemError(kind, detail, headers=error.headers).response()


async def _unexpected(request: Request, error: Exception) -> Response:
    # The path of the route, and not that of the request: it has no address. Without a route, nothing has matched yet.
    route = request.scope.get("route")
    where = route.path if route is not None else "a path without a route"
    log.error("%s %s failed", request.method, where, exc_info=error)
    return ProblemError(ProblemKind.INTERNAL, "the log of the console has the cause").response()
