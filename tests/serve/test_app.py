"""The server against its application in this process, without a port: its answers are those of `dvsn.load(...).predict`."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import dvsn
from dvsn.errors import CheckpointError, ConfigError
from dvsn.portable.decode import make_rule
from dvsn.portable.result import Result
from dvsn.serve.models import Served, make_models
from dvsn.serve.options import Settings
from tests.support.six_tasks import write_checkpoint

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("python_multipart", reason="the extra 'serve' is not installed")
httpx = pytest.importorskip("httpx", reason="httpx, which asks the application, is not installed")

from dvsn.serve.app import FOLDER, make_app, policy  # noqa: E402 - needs FastAPI

TASKS = ("segmentation", "detection", "classification", "pix2pix", "landmarks")
Client = Any


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("served")
    return {name: str(write_checkpoint(name, folder)) for name in TASKS}


@pytest.fixture(scope="module")
def models(paths: dict[str, str]) -> dict[str, Served]:
    """Loaded once; a `Served` may be used by several applications, one after the other."""
    found = make_models(Settings(models=paths, wait=0.02, batch=4))
    for model in found.values():
        model.load()
        model.load = lambda: None  # type: ignore[method-assign]
    return found


@asynccontextmanager
async def opened(models: Any, **options: Any) -> AsyncIterator[Client]:
    """A client of an application that has started."""
    settings = Settings(models={}, **options)
    app = make_app(settings, models, options.get("failed"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        while not app.state.service.lines:
            await asyncio.sleep(0)
        yield client


def asked(models: Any, work: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with opened(models, **options) as client:
            return await work(client)

    return asyncio.run(run())


def picture(seed: int, height: int = 64, width: int = 96) -> np.ndarray[Any, Any]:
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_LINEAR)


def png(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def same(one: Any, other: Any) -> bool:
    """Equal, numbers to 1e-3; without what says where a picture comes from."""
    if isinstance(one, dict):
        own = ("name", "path", "index", "image_id", "seconds", "shown_from")
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one if key not in own)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == pytest.approx(other, abs=1e-3, rel=1e-4)
    return bool(one == other)


# Answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_answers_are_those_of_python(name: str, paths: dict[str, str], models: dict[str, Served]) -> None:
    given = picture(1, *((128, 128) if name == "pix2pix" else ()))
    model = dvsn.load(paths[name])
    model.predict(
        picture(0, 256, 256)
    )  # torchvision's detectors take the strides of their maps from the first picture
    expected = model.predict(given).to_json()

    async def work(client: Client) -> tuple[Any, Any, Any]:
        address = f"/models/{name}/predict"
        raw = await client.post(address, content=png(given), params={"answer": "both"})
        form = await client.post(address, files={"any": ("../../x.exe", png(given), "text/plain")})
        drawn = await client.post(address, content=png(given), params={"answer": "overlay"})
        return raw, form, drawn

    raw, form, drawn = asked(models, work)
    assert raw.status_code == 200, raw.text
    content = raw.json()
    assert (content["model"], content["batch"]) == (name, 1)
    assert same(content["result"], expected)
    assert same(form.json()["result"], expected)
    assert "overlay" not in form.json()
    assert content["milliseconds"]["total"] >= content["milliseconds"]["network"] > 0
    assert drawn.headers["content-type"] == "image/png"
    assert base64.b64decode(content["overlay"]["png"]) == drawn.content
    shown = np.array(Image.open(io.BytesIO(drawn.content)))
    again = Result.from_json(content["result"], given)
    np.testing.assert_array_equal(shown, np.array(again.plot()))


def test_forty_requests_of_eight_clients(models: dict[str, Served]) -> None:
    """None is lost, each has the answer to its own picture, and they were batched: two sizes, in turns."""
    sides = ((64, 96), (96, 64))
    pictures = [picture(number, *sides[number % 2]) for number in range(40)]

    async def work(client: Client) -> tuple[list[Any], list[Any], str]:
        async def one(number: int) -> Any:
            answer = await client.post("/models/segmentation/predict", content=png(pictures[number]))
            return answer.json()

        async def several(first: int) -> list[Any]:
            return [await one(number) for number in range(first, 40, 8)]

        together = await asyncio.gather(*(several(first) for first in range(8)))
        alone = [await one(number) for number in range(0, 40, 7)]
        return together, alone, (await client.get("/metrics")).text

    together, alone, counters = asked(models, work)
    found = {first + 8 * place: each for first, row in enumerate(together) for place, each in enumerate(row)}
    assert sorted(found) == list(range(40))
    assert max(each["batch"] for each in found.values()) == 4
    for number, each in zip(range(0, 40, 7), alone, strict=True):
        assert each["batch"] == 1
        np.testing.assert_array_equal(*(classes(answer) for answer in (found[number], each)))
    assert len({each["result"]["ids"]["png"] for each in found.values()}) == 40
    assert re.search(r'requests_total\{model="segmentation",status="200"\} 46$', counters, re.MULTILINE)


def classes(answer: Any) -> np.ndarray[Any, Any]:
    data = base64.b64decode(answer["result"]["ids"]["png"])
    return np.array(Image.open(io.BytesIO(data)))


def test_what_depends_on_its_batch_is_asked_alone(models: dict[str, Served]) -> None:
    """The painter is tested with dropout; a detector pads pictures of different sizes."""
    assert models["pix2pix"].batch == 1
    assert models["segmentation"].batch == 4
    one, other = picture(0, 64, 96), picture(0, 96, 64)
    for name, equal in (("detection", False), ("segmentation", True)):
        assert (models[name].together(one, ()) == models[name].together(other, ())) is equal


def test_options_of_a_request(models: dict[str, Served]) -> None:
    async def work(client: Client) -> list[Any]:
        lines = (
            "classification/predict?top=2", "detection/predict?score=1", "segmentation/predict?score=0.5",
            "classification/predict?top=0", "segmentation/predict?boxes=/etc/passwd", "segmentation/predict?answer=all",
        )  # fmt: skip
        return [await client.post(f"/models/{line}", content=png(picture(2))) for line in lines]

    top, score, *refused = asked(models, work)
    assert len(top.json()["result"]["classes"]) == 2
    assert score.json()["result"]["boxes"] == []
    assert [each.status_code for each in refused] == [422] * 4
    assert "no such option" in refused[0].json()["error"]["message"]
    assert refused[2].json()["error"]["message"] == "boxes: no such option. Expected answer, score or top."


# What is refused ----------------------------------------------------------------------------------------


async def endless() -> AsyncIterator[bytes]:
    """A body whose length nobody announces."""
    while True:
        yield bytes(10_000)


def test_every_error_has_one_form(models: dict[str, Served]) -> None:
    small = png(picture(0))
    half = small[: len(small) // 2]

    async def work(client: Client) -> dict[str, Any]:
        address = "/models/segmentation/predict"
        return {
            "413 too_many_bytes": await client.post(address, content=bytes(60_001)),
            "413 too_many_bytes ": await client.post(address, content=endless()),
            "413 too_many_bytes  ": await client.post(address, files={"a": bytes(60_001)}),
            "413 too_many_pixels": await client.post(address, content=png(np.zeros((101, 100, 3), np.uint8))),
            "415 no_picture": await client.post(address, files={"a": ("a.png", b"text", "image/png")}),
            "422 damaged": await client.post(address, content=half),
            "400 empty": await client.post(address),
            "400 bad_form": await client.post(address, files={"a": small, "b": small}),
            "400 bad_form ": await client.post(
                address, content=b"x", headers={"Content-Type": "multipart/form-data; boundary=y"}
            ),
            "404 no_model": await client.post("/models/best.ckpt/predict", content=small),
            "404 not_found": await client.get("/nothing"),
            "405 method_not_allowed": await client.get(address),
            "422 invalid": await client.post(f"{address}?answer=x", content=small),
            "421 unknown_host": await client.get("/", headers={"Host": "evil.com"}),
            "403 other_site": await client.post(address, headers={"Origin": "http://evil.com"}),
        }

    for expected, answer in asked(models, work, max_bytes=60_000, max_pixels=10_000).items():
        error = answer.json()["error"]
        assert f"{answer.status_code} {error['code']}" == expected.strip(), error
        assert error["status"] == answer.status_code
        assert error["message"].endswith(".")
        assert "Traceback" not in answer.text and "/tmp" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


class Slow:
    """In place of a model: it answers when it is let."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.name, self.path, self.ready, self.batch = "slow", "/secret/slow.ckpt", False, 1
        self.rule, self.reads, self.device, self.options = (
            make_rule(),
            "photo",
            "cpu",
            {"boxes": 1, "size": 1},
        )
        self.task = SimpleNamespace(kind="classification")
        self.loaded, self.let, self.fault = threading.Event(), threading.Event(), fault

    def load(self) -> None:
        self.loaded.wait(20)
        self.ready = True

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "ready": self.ready}

    def choose(self, given: Any) -> Any:
        return ()

    def together(self, picture: Any, chosen: Any) -> Any:
        return ()

    def ask(self, pictures: Sequence[Any], chosen: Any) -> list[Result]:
        self.let.wait(20)
        if self.fault is not None:
            raise self.fault
        return [SimpleNamespace(to_json=lambda: {}) for _ in pictures]  # type: ignore[misc]


def test_a_full_server_says_when_to_come_again() -> None:
    model = Slow()
    model.loaded.set()

    async def work(client: Client) -> tuple[Any, list[Any], Any]:
        while (await client.get("/health")).status_code != 200:
            await asyncio.sleep(0.01)

        def ask() -> Any:
            return client.post("/models/slow/predict", content=png(picture(0)))

        first = [asyncio.create_task(ask()) for _ in range(2)]
        while "dvsn_requests_inside 2" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)
        third = await ask()
        model.let.set()
        return third, await asyncio.gather(*first), await ask()

    third, first, later = asked({"slow": model}, work, queue=2)
    assert third.status_code == 503
    assert third.json()["error"]["code"] == "busy"
    assert int(third.headers["retry-after"]) >= 1
    assert [each.status_code for each in (*first, later)] == [200] * 3


def test_it_is_ready_only_when_all_is_loaded() -> None:
    model = Slow()

    async def work(client: Client) -> list[Any]:
        before = await client.get("/health")
        early = await client.post("/models/slow/predict", content=png(picture(0)))
        model.loaded.set()
        while not model.ready:
            await asyncio.sleep(0.01)
        return [before, early, await client.get("/health")]

    before, early, after = asked({"slow": model}, work)
    assert (before.status_code, before.json()) == (503, {"status": "loading", "models": {"slow": "loading"}})
    assert (early.status_code, early.json()["error"]["code"]) == (503, "loading")
    assert early.headers["retry-after"] == "2"
    assert (after.status_code, after.json()["status"]) == (200, "ready")


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (KeyError("secret"), 500, "The server could not answer; its log says why."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 GB"), 413, "too large for the memory"),
        (ConfigError("/secret/slow.ckpt: takes 64x64."), 422, "The model 'slow': takes 64x64."),
    ],
)
def test_faults_of_a_model(fault: Exception, status: int, said: str) -> None:
    model = Slow(fault)
    model.loaded.set()
    model.let.set()

    async def work(client: Client) -> Any:
        while (await client.get("/health")).status_code != 200:
            await asyncio.sleep(0.01)
        return await client.post("/models/slow/predict", content=png(picture(0)))

    answer = asked({"slow": model}, work)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    assert "secret" not in answer.text


def test_a_slow_upload_is_given_up() -> None:
    model = Slow()
    model.ready = True

    async def slow() -> AsyncIterator[bytes]:
        yield b"\x89PNG"
        await asyncio.sleep(20)

    async def work(client: Client) -> Any:
        return await client.post("/models/slow/predict", content=slow())

    answer = asked({"slow": model}, work, upload=0.05)
    model.loaded.set()
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "too_slow")


# Models -------------------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"\x80\x04nothing")
    settings = Settings(models={"bad": str(tmp_path / "bad.ckpt")})
    told: list[BaseException] = []

    async def work() -> None:
        app = make_app(settings, make_models(settings), told.append)
        async with app.router.lifespan_context(app):
            while not told:
                await asyncio.sleep(0.01)

    asyncio.run(work())
    assert isinstance(told[0], CheckpointError)


def test_a_detector_finds_the_faces(paths: dict[str, str]) -> None:
    """It is loaded once, and one that knows no faces is refused when the server starts."""
    model = Served("faces", paths["landmarks"], Settings(models={}, boxes=paths["detection"]))
    with pytest.raises(ConfigError, match="knows no class called 'face'"):
        model.load()
    model = Served("faces", paths["landmarks"], Settings(models={}, boxes=paths["detection"], category=1))
    model.load()
    found = model.ask([picture(0), picture(1)], ())
    assert [each.points is not None and each.points.shape[1:] for each in found] == [(68, 3)] * 2


def test_an_option_that_no_model_has(models: dict[str, Served]) -> None:
    from dvsn.serve.models import check_used

    with pytest.raises(ConfigError, match="boxes: none of the models has such an option"):
        check_used({"a": models["segmentation"]}, Settings(models={}, boxes="found.ckpt"))
    check_used(models, Settings(models={}))


# The pages ----------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The attributes of a page that name something to be loaded, and those that would run a script."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.handlers: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag == "link"):
                self.loaded.append(str(value))
            if name.startswith("on") or name == "style":
                self.handlers.append(name)
            if name == "id":
                self.ids.add(str(value))


@pytest.mark.parametrize(("path", "file"), [("/", "page.html"), ("/docs", "api.html")])
def test_pages_hold_all_that_they_need(path: str, file: str, models: dict[str, Served]) -> None:
    answer = asked(models, lambda client: client.get(path))
    page = (FOLDER / file).read_text(encoding="utf-8")
    assert answer.text == page
    tags = Tags()
    tags.feed(page)
    assert set(tags.loaded) <= {"data:,"}
    assert not tags.handlers
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page and "eval(" not in page
    assert not re.search(r"https?://", page)
    assert set(re.findall(r'\$\("(\w+)"\)', page)) <= tags.ids
    rules = answer.headers["content-security-policy"]
    assert rules == policy(page)
    assert "default-src 'none'" in rules and "unsafe" not in rules and rules.count("'sha256-") == 2


def test_what_the_server_says_of_itself(models: dict[str, Served]) -> None:
    async def work(client: Client) -> tuple[Any, Any]:
        return (await client.get("/models")).json(), (await client.get("/openapi.json")).json()

    about, described = asked(models, work)
    known = {each["name"]: each for each in about["models"]}
    assert known["detection"]["options"] == ["score"]
    assert known["pix2pix"]["reads"] == "photo"
    assert about["limits"] == {
        "bytes": 20_000_000,
        "pixels": 25_000_000,
        "formats": ["JPEG", "PNG", "WEBP", "BMP"],
    }
    assert set(described["paths"]) == {"/models", "/health", "/metrics", "/models/{name}/predict"}
    predict = described["paths"]["/models/{name}/predict"]["post"]
    assert {"multipart/form-data", "image/png"} <= set(predict["requestBody"]["content"])
    assert {"200", "413", "415", "503"} <= set(predict["responses"])
    assert [each["name"] for each in predict["parameters"]] == ["name", "answer", "score", "top"]
