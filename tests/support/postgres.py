"""A PostgreSQL server of a test's own, on loopback, with a password; where `initdb` is found."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PASSWORD = "se{c}r:t@p/w%41"
"""With all that a URL and a format string take amiss."""


class Server(NamedTuple):
    url: str
    """Without a password: of the user tester and the database studies."""
    port: int


def found() -> Path | None:
    """The folder of PostgreSQL's programs."""
    initdb = shutil.which("initdb") or next(
        (str(each) for each in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None
    )
    return Path(os.path.realpath(initdb)).parent if initdb else None


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def why_not() -> str:
    """Why there can be no server; empty where there can."""
    if found() is None:
        return "PostgreSQL is not installed: there is no initdb"
    other = shutil.which("runuser") is not None and shutil.which("setpriv") is not None
    return "root cannot start PostgreSQL without runuser" if os.getuid() == 0 and not other else ""


@contextmanager
def server() -> Iterator[Server]:
    """A new cluster that is stopped and removed at the end. Root starts it as the user `nobody`."""
    programs, port, root = found(), free_port(), os.getuid() == 0
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="dvsn_pg_") as name:
        folder = Path(name)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if root:
            shutil.chown(folder, "nobody")
            shutil.chown(secret, "nobody")

        def call(words: Sequence[str]) -> None:
            become = ["runuser", "-u", "nobody", "--"] if root else []
            subprocess.run([*become, *words], check=True, stdout=subprocess.DEVNULL, cwd="/")

        data = str(folder / "data")
        call(
            [
                str(programs / "initdb"),
                "-D",
                data,
                "-A",
                "scram-sha-256",
                "-U",
                "tester",
                "--no-sync",
                f"--pwfile={secret}",
            ]
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        control = [str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options]
        call([*control, "start"])
        try:
            env = {**os.environ, "PGPASSWORD": PASSWORD}
            make = [
                "psql",
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
                "-U",
                "tester",
                "-d",
                "postgres",
                "-c",
                "create database studies",
            ]
            subprocess.run(
                [str(programs / make[0]), *make[1:]], env=env, check=True, stdout=subprocess.DEVNULL
            )
            yield Server(f"postgresql://tester@127.0.0.1:{port}/studies", port)
        finally:
            call([*control, "-m", "immediate", "stop"])
