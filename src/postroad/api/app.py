"""Creates the application of the API, which `postroad console` mounts at `/api/v1`."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import CallerParameter
from postroad.api.parts import ApiParts
from postroad.api.problems import FieldProblem, Problem, ProblemError, ProblemKind, add_handlers
from postroad.api.routes import (
    campaign_acts,
    campaign_files,
    campaign_reports,
    campaigns,
    consents,
    deliveries,
    gates,
    launches,
    message_acts,
    messages,
    recipients,
    shaping,
    suppressions,
    undecided,
    warmup,
    webhooks,
)
from postroad.settings import AccessRole

MOUNT_PATH: Final = "/api/v1"
ROUTERS: Final = (
    messages.router,
    message_acts.router,
    recipients.router,
    consents.router,
    suppressions.router,
    campaigns.router,
    campaign_acts.router,
    campaign_files.router,
    campaign_reports.router,
    launches.router,
    deliveries.router,
    gates.router,
    shaping.router,
    warmup.router,
    undecided.router,
    webhooks.router,
)

_DESCRIPTION: Final = (
    "Requests have the header `Authorization: Bearer KEY`. Each operation has the scope that its key needs in "
    "`x-scope`; scopes are view, send, operate and own, and each includes those before it. Errors are problem details "
    "(RFC 9457). Times are in UTC (RFC 3339). Lists have a cursor: send `next` of one page as `cursor` of the next."
)


def create_api(parts: ApiParts) -> ASGIApp:
    """Return the application of the API."""
    return RateLimitHeaders(create_routes(parts))


async def answer_no_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a path that the mount of the API does not take, such as one with a line break."""
    await ProblemError(ProblemKind.NOT_FOUND, "there is no such path").response()(scope, receive, send)


def create_routes(parts: ApiParts | None = None) -> FastAPI:
    """Return the routes of the API. ``parts`` None: only their description is needed."""
    app = FastAPI(title="Postroad", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.parts = parts
    for router in (*ROUTERS, _description(app)):
        # As they are: included, the signature of each endpoint would be analysed again for each application.
        app.router.routes.extend(router.routes)
    add_handlers(app)
    return app


def _description(app: FastAPI) -> APIRouter:
    router = APIRouter(route_class=ApiRoute, tags=["description"])

    @router.get("/openapi.json", include_in_schema=False, response_class=JSONResponse)
    @needs(AccessRole.VIEW)
    async def get_openapi_json(_caller: CallerParameter) -> JSONResponse:
        """Return this description."""
        return JSONResponse(openapi(app))

    return router


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description of the routes, with problems and the security of keys."""
    found = get_openapi(
        title="Postroad",
        version="1",
        summary="Permission-based email campaigns: messages, recipients, campaigns",
        description=_DESCRIPTION,
        routes=app.routes,
        servers=[{"url": MOUNT_PATH}],
    )
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (Problem, FieldProblem):
        schemas[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas[model.__name__].pop("$defs", None)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "pr_PREFIX_SECRET"}}
    found["security"] = [{"key": []}]
    return found


class RateLimitHeaders:
    """Adds the rate limit of the key to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        # A request's state, which the routes share with this.
        state = scope.setdefault("state", {})

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                limits = state.get("rate_limit_headers", {})
                added = [(name.lower().encode(), value.encode()) for name, value in limits.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
