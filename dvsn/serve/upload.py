"""The file of a request's body, raw or of a form, within limits of bytes and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from dvsn.serve.refusal import Refusal

AROUND = 16_384
"""Bytes of a form around its file."""
THROWN_AWAY = 64_000_000
"""Bytes of a body that is too large which are taken all the same: a browser reads no answer before it has sent all."""
PATIENCE = 5.0
"""Seconds for that."""


async def read_file(request: Request, *, most: int, seconds: float) -> bytes:
    """The uploaded file: the body, or of a form (multipart/form-data) its one file.

    Raises `Refusal`: 413 for more than `most` bytes, 408 for a body that has not come in `seconds`, 400 for a form without a
    file.
    """
    form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    allowed = most + (AROUND if form else 0)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > allowed:
        await _throw_away(request)
        raise too_large(most, int(announced))
    try:
        async with asyncio.timeout(seconds):
            data = await (_of_form(request, allowed, most) if form else _of_body(request, allowed, most))
    except TimeoutError as error:
        raise Refusal(408, "too_slow", f"The upload has not come within {seconds:g} s.") from error
    except ClientDisconnect as error:
        raise Refusal(400, "broken_off", "The upload was broken off.") from error
    if len(data) > most:
        raise too_large(most, len(data))
    return data


def too_large(most: int, found: int | None = None) -> Refusal:
    size = "is too large" if found is None else f"has {found / 1e6:,.1f} MB"
    return Refusal(413, "too_many_bytes", f"The file {size}; expected {most / 1e6:,.1f} MB at most.")


async def _limited(request: Request, allowed: int, most: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Its length need not be announced, so it is counted."""
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > allowed:
            raise too_large(most)
        yield part


async def _of_body(request: Request, allowed: int, most: int) -> bytes:
    return b"".join([part async for part in _limited(request, allowed, most)])


async def _of_form(request: Request, allowed: int, most: int) -> bytes:
    """The content of a form's file; its name is not used."""
    stream = _limited(request, allowed, most)
    try:
        form = await MultiPartParser(
            request.headers, stream, max_files=1, max_fields=0, max_part_size=AROUND
        ).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise Refusal(
            400, "bad_form", "The form cannot be read; expected multipart/form-data with one file."
        ) from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Refusal(400, "bad_form", "The form holds no file; expected one, in any field.")
        return await files[0].read()
    finally:
        await form.close()


async def _throw_away(request: Request) -> None:
    """Take a body that is not wanted, unless its sender asks first whether to send it."""
    if request.headers.get("expect"):
        return
    taken = 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                taken += len(part)
                if taken > THROWN_AWAY:
                    return
    except (TimeoutError, ClientDisconnect):
        return
