"""The models, the lines before them and the threads that work: the way of a picture from an upload to an answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

from starlette.requests import Request

from dvsn.errors import UserError
from dvsn.portable import overlay
from dvsn.serve.batching import Answered, Gate, Line
from dvsn.serve.metrics import Metrics
from dvsn.serve.models import Served, check_used
from dvsn.serve.options import Settings
from dvsn.serve.pictures import decode, png, read_header, sentence
from dvsn.serve.refusal import Refusal
from dvsn.serve.upload import read_file

log = logging.getLogger("dvsn")

LARGE = 4
"""So many pictures of the most pixels may be decoded at a time."""
Answer = Literal["json", "overlay", "both"]


class Written(NamedTuple):
    """The body of an answer, and its kind."""

    data: bytes
    kind: str


class Service:
    """The models, the lines before them, and the threads that do the work.

    One thread asks the networks, of all models, one batch after the other: each uses all cores or the whole device. A few
    others decode and draw.
    """

    def __init__(self, settings: Settings, models: Mapping[str, Served]) -> None:
        self.settings, self.models = settings, models
        self.gate = Gate(requests=settings.queue, pixels=LARGE * settings.max_pixels)
        self.metrics = Metrics()
        self.lines: dict[str, Line] = {}
        self.stopping = False
        self.asking = ThreadPoolExecutor(1, "asking")
        self.drawing = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "drawing")
        self.metrics.gauges = {
            "dvsn_requests_inside": ("Requests being answered.", lambda: {"": self.gate.inside}),
            "dvsn_pictures_waiting": (
                "Pictures in line.", lambda: {name: len(line.jobs) for name, line in self.lines.items()},
            ),
            "dvsn_model_ready": (
                "Whether a model is loaded.", lambda: {name: float(each.ready) for name, each in models.items()},
            ),
        }  # fmt: skip

    @property
    def ready(self) -> bool:
        return not self.stopping and all(each.ready for each in self.models.values())

    @contextlib.asynccontextmanager
    async def running(self, failed: Callable[[BaseException], None]) -> AsyncIterator[None]:
        """Loads the models while requests may come already; `failed` is told when one cannot be loaded."""
        tasks = [asyncio.create_task(self._load(failed))]
        for name, model in self.models.items():

            def told(size: int, seconds: float, name: str = name) -> None:
                self.metrics.batches.add(name, size)
                self.metrics.network.add(name, seconds)

            line = Line(
                model.ask, self.asking, most=model.batch, wait=self.settings.wait,
                pixels=self.settings.max_pixels, told=told,
            )  # fmt: skip
            self.lines[name] = line
            tasks.append(asyncio.create_task(line.run()))
        try:
            yield
        finally:
            self.stopping = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.asking.shutdown(wait=False, cancel_futures=True)
            self.drawing.shutdown(wait=False, cancel_futures=True)

    async def _load(self, failed: Callable[[BaseException], None]) -> None:
        loop, bounds = asyncio.get_running_loop(), contextvars.copy_context()
        try:
            for name, model in self.models.items():
                await loop.run_in_executor(self.asking, bounds.run, model.load)
                self.lines[name].most = model.batch
                log.info("%s: %s, %s, on %s", name, model.path, model.task.kind, model.device)
            check_used(self.models, self.settings)
        except Exception as error:  # noqa: BLE001 - it ends the server, which raises it again
            failed(error)

    def model(self, name: str) -> Served:
        """Raises `Refusal`: 404 for a name that is none, 503 for a model that is still being loaded."""
        model = self.models.get(name)
        if model is None:
            raise Refusal(
                404, "no_model", f"There is no such model here. There are: {', '.join(self.models)}."
            )
        if not model.ready:
            raise Refusal(
                503, "loading", f"The model '{name}' is still being loaded. Come again.", retry_after=2
            )
        return model

    async def predict(self, name: str, request: Request, given: Mapping[str, Any], answer: Answer) -> Written:
        """From an upload to the answer. Raises `Refusal`, whatever is wrong."""
        start, status = time.perf_counter(), 500
        try:
            written = await self._predict(self.model(name), request, given, answer, start)
            status = 200
            self.metrics.seconds.add(name, time.perf_counter() - start)
        except Refusal as refusal:
            status = refusal.status
            raise
        except UserError as error:
            status = 422
            said = str(error).replace(str(self.models[name].path), f"the model '{name}'")
            raise Refusal(422, "unfit", sentence(said)) from error
        except Exception as error:
            if is_memory(error):
                status = 413
                raise Refusal(
                    413, "no_memory", "The picture is too large for the memory of this model."
                ) from error
            log.exception("%s: a request failed", name)
            raise Refusal(500, "internal", "The server could not answer; its log says why.") from error
        finally:
            self.metrics.requests[name if name in self.models else "", status] += 1
        return written

    async def _predict(
        self, model: Served, request: Request, given: Mapping[str, Any], answer: Answer, start: float
    ) -> Written:
        loop, chosen, settings = asyncio.get_running_loop(), model.choose(given), self.settings
        async with self.gate.entered():
            data = await read_file(request, most=settings.max_bytes, seconds=settings.upload)
            spent = {"upload": time.perf_counter() - start}
            header = read_header(data, max_pixels=settings.max_pixels)
            async with self.gate.holding(header.pixels):
                begun = time.perf_counter()
                ids, rule = model.reads == "ids", model.rule
                picture = await loop.run_in_executor(self.drawing, lambda: decode(data, ids=ids, rule=rule))
                spent["decode"] = time.perf_counter() - begun
                key = model.together(picture, chosen)
                answered = await self.lines[model.name].answer(picture, chosen, key)
                spent |= {"wait": answered.waited, "network": answered.worked}
                return await loop.run_in_executor(
                    self.drawing, lambda: write(model, answered, answer, spent, start)
                )


def is_memory(error: Exception) -> bool:
    """Whether memory ran out: torch says it in words."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def write(
    model: Served, answered: Answered, answer: Answer, spent: Mapping[str, float], start: float
) -> Written:
    """A result as JSON, as a drawn picture, or both. `spent`: seconds of the steps before; `start`: of the request."""
    begun = time.perf_counter()
    drawn = None if answer == "json" else png(overlay.draw(answered.result))
    if drawn is not None and answer == "overlay":
        return Written(drawn, "image/png")
    content: dict[str, Any] = {"model": model.name, "task": model.task.kind, "batch": answered.batch}
    content["result"] = answered.result.to_json()
    if drawn is not None:
        content["overlay"] = {"png": base64.b64encode(drawn).decode("ascii")}
    now = time.perf_counter()
    times = {**spent, "write": now - begun, "total": now - start}
    content["milliseconds"] = {name: round(1000 * seconds, 2) for name, seconds in times.items()}
    return Written(json.dumps(content, allow_nan=False).encode(), "application/json")
