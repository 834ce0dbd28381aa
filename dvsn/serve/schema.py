"""What the OpenAPI page says of bodies and answers."""

from __future__ import annotations

from typing import Any

DESCRIPTION = (
    "Pictures in, predictions out. Every error is "
    '{"error": {"status": 413, "code": "too_many_bytes", "message": "..."}}; '
    "with 503 the header Retry-After says in how many seconds to come again."
)

_FILE = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "required": True,
    "description": "A picture: the file itself, or one file of a form.",
    "content": {
        **{f"image/{kind}": {"schema": _FILE} for kind in ("jpeg", "png", "webp", "bmp")},
        "application/octet-stream": {"schema": _FILE},
        "multipart/form-data": {
            "schema": {"type": "object", "required": ["picture"], "properties": {"picture": _FILE}}
        },
    },
}

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "status": {"type": "integer"},
                "code": {"type": "string"},
                "message": {"type": "string"},
            },
        }
    },
}
_RESULT = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "task": {"type": "string"},
        "batch": {"type": "integer", "description": "Pictures that went through the network together"},
        "milliseconds": {"type": "object", "additionalProperties": {"type": "number"}},
        "result": {
            "type": "object",
            "description": "As Result.to_json() of dvsn; Result.from_json reads it",
        },
        "overlay": {
            "type": "object",
            "properties": {"png": {"type": "string", "description": "PNG in base64"}},
        },
    },
}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


ANSWERS: dict[str, Any] = {
    "health": {"description": "A model is being loaded, or the server is about to stop"},
    "predict": {
        "description": "The answer",
        "content": {"application/json": {"schema": _RESULT}, "image/png": {"schema": _FILE}},
    },
    "errors": {
        400: _error("An empty or broken upload"),
        403: _error("A page of another site"),
        404: _error("No such model"),
        408: _error("The upload took too long"),
        413: _error("Too many bytes, or too many pixels"),
        415: _error("Not a picture of a known kind"),
        422: _error("A wrong option, a damaged picture, or one that the model cannot take"),
        503: _error("Busy, or still loading: see Retry-After"),
    },
}
