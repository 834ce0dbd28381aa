"""Who may call: the server's own page and programs, not the page of another site in somebody's browser."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from dvsn.serve.guard import Guard


def called(
    headers: dict[str, str], *, local: bool = True, names: tuple[str, ...] = (), method: str = "POST", path: str = "/models"
) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
    """Status, headers and body of the answer; 200 is the application's."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-cache")]}
        )
        await send({"type": "http.response.body", "body": b"yes"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(Guard(app, local=local, names=names)(scope, None, send))  # type: ignore[arg-type]
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


@pytest.mark.parametrize(
    ("host", "local", "status"),
    [
        ("localhost:8000", True, 200),
        ("127.0.0.1", True, 200),
        ("[::1]:8000", True, 200),
        ("LocalHost", True, 200),
        ("evil.com", True, 421),
        ("localhost.evil.com:8000", True, 421),
        ("127.0.0.1.evil.com", True, 421),
        ("192.168.0.7:8000", True, 421),
        ("", True, 421),
        ("192.168.0.7:8000", False, 200),
        ("[fe80::1]:8000", False, 200),
        (socket.gethostname() + ":80", False, 200),
        ("vision.example", False, 200),
        ("evil.com", False, 421),
    ],
)
def test_the_name_that_it_is_called_by(host: str, local: bool, status: int) -> None:
    assert called({"Host": host}, local=local, names=("Vision.Example",) if not local else ())[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://localhost:8000"}, 200),  # behind a proxy that has encryption
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "http://evil.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),  # a form of theirs
    ],
)
def test_pages_of_other_sites(headers: dict[str, str], status: int) -> None:
    found, _, body = called({"Host": "localhost:8000", **headers})
    assert found == status
    if status == 403:
        assert json.loads(body)["error"]["code"] == "other_site"


def test_a_link_to_the_page_may_be_followed() -> None:
    headers = {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert called(headers, method="GET", path="/")[0] == 200
    assert called(headers, method="GET", path="/models")[0] == 403
    assert called(headers | {"Sec-Fetch-Mode": "no-cors"}, method="GET", path="/")[0] == 403


def test_every_answer_bears_the_headers() -> None:
    for host in ("localhost", "evil.com"):
        _, found, _ = called({"Host": host})
        assert found["x-content-type-options"] == "nosniff"
        assert found["x-frame-options"] == "DENY"
        assert not [name for name in found if name.startswith("access-control")]
    assert called({"Host": "localhost"})[1]["cache-control"] == "no-cache"  # the application's own stays
