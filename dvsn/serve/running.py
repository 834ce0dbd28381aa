"""The server from its options to its end: a socket, the application, signals."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from collections.abc import Mapping
from typing import Any

from dvsn.config.light_imports import import_lightning
from dvsn.errors import ConfigError
from dvsn.serve.options import Settings, read_settings

log = logging.getLogger("dvsn")

EXTRA = "pip install 'dvsn[serve]'"


def run(options: Mapping[str, Any]) -> None:
    """Serve until SIGINT or SIGTERM; then finish what was begun and return.

    Raises `ConfigError` for wrong options, a missing library or a port that is taken, and `CheckpointError` for a model that
    cannot be loaded.
    """
    require_libraries()
    settings = read_settings(options)
    with listen(settings) as opened:
        warn_of_others(settings)
        import_lightning()
        serve_at(opened, settings)


def require_libraries() -> None:
    """Raise `ConfigError` with the line that installs what is missing."""
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"dvsn.serve needs FastAPI, uvicorn and python-multipart; {error.name} is not installed. {EXTRA}"
        ) from error


def listen(settings: Settings) -> socket.socket:
    """The socket that is listened at. Raises `ConfigError`."""
    host, port = settings.host.strip("[]"), settings.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen()  # who comes now waits until the server is up
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port: {port} is taken by another program. Choose another one, or port=0 for any that is free."
            ) from error
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"host, port: cannot listen at {host}, port {port}: {reason}. Expected an address of this machine."
        ) from error
    return opened


def warn_of_others(settings: Settings) -> None:
    if not settings.local:
        log.warning(
            "host=%s: whoever reaches this machine may use the models. There is no password and no encryption; put a proxy "
            "that has both before it, or leave host out.", settings.host,
        )  # fmt: skip


def serve_at(opened: socket.socket, settings: Settings) -> None:
    """Serve at a bound socket. Signals are handled as long as it runs, and end it with a return."""
    import uvicorn

    from dvsn.serve.app import make_app
    from dvsn.serve.models import make_models

    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    app = make_app(settings, make_models(settings), failed)
    config = uvicorn.Config(
        app, http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=max(1, round(settings.grace)),
    )  # fmt: skip
    server = uvicorn.Server(config)
    log.info("http://%s  (HTTP API: /docs; Ctrl-C stops)", place(opened, settings))
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }  # uvicorn sends itself once more, when all is done, what it was stopped by
    try:
        server.run(sockets=[opened])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failures:
        raise failures[0]
    log.info("stopped: %s", app.state.service.metrics.summary())


def place(opened: socket.socket, settings: Settings) -> str:
    """HOST:PORT to call the server by."""
    port = opened.getsockname()[1]
    host = settings.host.strip("[]")
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
