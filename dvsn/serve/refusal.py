"""Why a request is not answered: a status of HTTP, a word for programs and a sentence for people."""

from __future__ import annotations

import json
from typing import Any


class Refusal(Exception):
    """A request that is not answered.

    `status`: of HTTP; `code`: one word for programs, such as `too_many_pixels`; `message`: a sentence; `retry_after`: the
    seconds after which to come again, where that helps.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The one form that every error has."""
        return {"error": {"status": self.status, "code": self.code, "message": self.message}}

    @property
    def data(self) -> bytes:
        return json.dumps(self.body).encode()

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 422: "invalid"}
"""The word of an error that the server's library raises."""
