"""The HTTP application: its addresses, its errors, its page."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from dvsn.serve import metrics
from dvsn.serve.guard import Guard
from dvsn.serve.models import Served
from dvsn.serve.options import Settings
from dvsn.serve.pictures import FORMATS
from dvsn.serve.refusal import CODES, Refusal
from dvsn.serve.schema import ANSWERS, BODY, DESCRIPTION
from dvsn.serve.service import Answer, Service
from dvsn.version import VERSION

FOLDER = Path(__file__).parent


def make_app(
    settings: Settings, models: Mapping[str, Served], failed: Callable[[BaseException], None] | None = None
) -> FastAPI:
    """The application of some models, which it loads when it is started; `failed` is told of one that cannot be loaded."""
    service = Service(settings, models)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running(failed or (lambda error: None)):
            yield

    app = FastAPI(
        title="dvsn",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    add_errors(app)
    add_pages(app)
    add_state(app, service)
    add_predict(app, service)
    app.add_middleware(Guard, local=settings.local, names=settings.names)  # type: ignore[arg-type]
    return app


def add_errors(app: FastAPI) -> None:
    """Every error has the one form of `Refusal`."""

    def of(refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.body, refusal.status, headers=refusal.headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return of(error)

    @app.exception_handler(HTTPException)
    async def raised(_: Request, error: HTTPException) -> JSONResponse:
        code = CODES.get(error.status_code, "error")
        return of(Refusal(error.status_code, code, f"{error.detail}. The addresses are listed at /docs."))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return of(Refusal(422, "invalid", f"{said}."))

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return of(Refusal(500, "internal", "The server could not answer; its log says why."))


def add_pages(app: FastAPI) -> None:
    """The page, and that of the HTTP API."""

    def add(path: str, file: str) -> None:
        text = (FOLDER / file).read_text(encoding="utf-8")
        headers = {"Content-Security-Policy": policy(text)}

        @app.get(path, response_class=HTMLResponse, include_in_schema=False)
        async def page() -> HTMLResponse:
            return HTMLResponse(text, headers=headers)

    add("/", "page.html")
    add("/docs", "api.html")


def policy(page: str) -> str:
    """The Content-Security-Policy of a page: its own scripts and styles, by their hashes, and nothing from elsewhere."""

    def hashes(tag: str) -> str:
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        sums = (base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies)
        return " ".join(f"'sha256-{each}'" for each in sums) or "'none'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def add_state(app: FastAPI, service: Service) -> None:
    """What the server is, and how it does."""

    @app.get("/models", summary="The models, and the limits of uploads")
    async def models() -> dict[str, Any]:
        settings = service.settings
        return {
            "models": [model.about() for model in service.models.values()],
            "limits": {"bytes": settings.max_bytes, "pixels": settings.max_pixels, "formats": list(FORMATS)},
        }

    @app.get("/health", summary="Whether every model is loaded", responses={503: ANSWERS["health"]})
    async def health(response: Response) -> dict[str, Any]:
        response.status_code = 200 if service.ready else 503
        status = "ready" if service.ready else "stopping" if service.stopping else "loading"
        states = {name: "ready" if each.ready else "loading" for name, each in service.models.items()}
        return {"status": status, "models": states}

    @app.get("/metrics", summary="Counters, as Prometheus reads them", response_class=PlainTextResponse)
    async def counters() -> Response:
        return Response(service.metrics.text(), media_type=metrics.TYPE)


def add_predict(app: FastAPI, service: Service) -> None:
    """The prediction."""

    @app.post(
        "/models/{name}/predict", summary="Ask a model about a picture", response_class=Response,
        responses={200: ANSWERS["predict"], **ANSWERS["errors"]}, openapi_extra={"requestBody": BODY},
    )  # fmt: skip
    async def predict(
        name: str,
        request: Request,
        answer: Annotated[
            Answer, Query(description="json; overlay: the picture with the answer drawn on it, PNG; both: JSON with it")
        ] = "json",
        score: Annotated[
            float | None, Query(ge=0, le=1, description="detection: objects of a lower score are left out")
        ] = None,
        top: Annotated[int | None, Query(ge=1, le=1000, description="classification: how many classes")] = None,
    ) -> Response:  # fmt: skip
        known = {"answer", "score", "top"}
        for key in request.query_params:
            if key not in known:
                raise Refusal(422, "invalid", f"{key[:64]}: no such option. Expected answer, score or top.")
        given = {key: value for key, value in (("score", score), ("top", top)) if value is not None}
        written = await service.predict(name, request, given, answer)
        return Response(written.data, media_type=written.kind)
