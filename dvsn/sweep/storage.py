"""Storages of a search that several machines share: a database by its URL, or Optuna's gRPC proxy before one.

A password is never part of what is shown or kept: the address is read once, and every message is passed through
`dvsn.errors.without_passwords`.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dvsn.errors import ConfigError, nearest, without_passwords

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL

EXPECTED = "postgresql://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE, sqlite:///FILE or grpc://HOST:PORT"
DRIVERS = {"postgresql": "pg8000", "mysql": "pymysql"}
"""The drivers of the extra `hpo-shared`: BSD and MIT. Another one may be named, as in postgresql+psycopg://..."""
PASSWORDS = {"postgresql": "PGPASSWORD", "mysql": "MYSQL_PWD"}
"""The variables of each server's own programs."""
TIMEOUTS = {"pg8000": "timeout", "psycopg": "connect_timeout", "psycopg2": "connect_timeout",
            "pymysql": "connect_timeout", "mysqldb": "connect_timeout", "pysqlite": "timeout"}  # fmt: skip
"""What each driver calls the seconds that it waits for a connection, or for SQLite's lock."""
INSTALL = "pip install 'dvsn[hpo-shared]'"
WAIT = 10  # seconds for an answer of a server


@dataclass(frozen=True)
class Address:
    """Where a shared study lies."""

    url: str = field(repr=False)
    """As it was given, with the password if it has one."""

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0].partition("+")[0]

    @property
    def shown(self) -> str:
        return without_passwords(self.url)


def read_address(url: Any, *, line: Any) -> Address | None:
    """The address in `search.storage`; None for the folder of the search. `line` is what the command line has for it.

    Raises `ConfigError` for one that a YAML file names, since the password of the environment would go to whatever
    server that is; and for one that has a password written out.
    """
    if url is None:
        return None
    if line is None:
        raise ConfigError("search.storage: not allowed in a config. Give it on the command line.")
    if not isinstance(url, str) or "://" not in url:
        raise ConfigError(f"search.storage: expected null, or {EXPECTED}.")
    found = Address(url)
    known = [*DRIVERS, "sqlite", "grpc"]
    if found.scheme not in known:
        hint = nearest(found.scheme, known)
        raise ConfigError(f"search.storage: found {found.scheme}://..., expected {EXPECTED}. {hint}")
    return found


def refuse_written_password(words: list[str]) -> None:
    """Raises `ConfigError` for a word of the command line that holds a password: all users of a machine see it there."""
    for word in words:
        ours = re.match(r"[+~]*search\b", word) or re.search(r"(postgres|mysql|mariadb)\S*://", word)
        if ours and without_passwords(word) != word and "${" not in word:
            key = re.match(r"[\w.+~/@-]*", word)
            raise ConfigError(
                f"{key[0] if key else 'command line'}: holds a password, which everybody sees in the list of processes. "
                "Leave it out of the URL and set PGPASSWORD (of MySQL MYSQL_PWD), or have the whole URL in a variable: "
                "'search.storage=${oc.env:NAME}'"
            )


def secrets(address: Address | None) -> set[str]:
    """The values of variables that a trial needs not know: the URL, and the password."""
    if address is None:
        return set()
    given = {address.url, os.environ.get(PASSWORDS.get(address.scheme, ""), "")}
    if address.scheme in DRIVERS:
        given.add(str(database(address).password or ""))
    return given - {""}


def database(address: Address) -> URL:
    """The URL of a database with its driver, and with the password of the environment where it has none itself.

    Raises `ConfigError`.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address.url)
    except (ArgumentError, ValueError):
        raise ConfigError(f"search.storage: {address.shown} is no URL, expected {EXPECTED}.") from None
    if url.drivername in DRIVERS:
        url = url.set(drivername=f"{url.drivername}+{DRIVERS[url.drivername]}")
    password = os.environ.get(PASSWORDS.get(address.scheme, ""))
    if password and url.password is None:
        url = url.set(password=password)
    if address.scheme in DRIVERS and not url.username:
        url = url.set(username=getpass.getuser())
    if not url.database:
        raise ConfigError(f"search.storage: {address.shown} names no database, expected {EXPECTED}.")
    return url


def opened(address: Address) -> BaseStorage:
    """The storage at an address, ready for use. Raises `ConfigError` where there is none, or it is not for us."""
    return _proxy(address) if address.scheme == "grpc" else _database(address)


def _proxy(address: Address) -> BaseStorage:
    try:
        parts = urlsplit(address.url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.username is not None or parts.path not in ("", "/"):
        raise ConfigError(f"search.storage: {address.shown}: expected grpc://HOST:PORT.")
    try:
        import grpc  # noqa: F401
        from optuna.storages import GrpcStorageProxy
    except ImportError:
        raise ConfigError(f"search.storage: grpc:// needs grpcio and Optuna 4.2. {INSTALL}") from None
    storage = GrpcStorageProxy(host=host, port=port)
    try:
        storage.wait_server_ready(timeout=WAIT)
        storage.get_all_studies()
    except troubles() as error:
        raise ConfigError(_explained(error, address, f"{host}:{port}")) from None
    return storage


def _database(address: Address) -> BaseStorage:
    """Optuna's RDBStorage with the cache that it has for itself.

    Several machines may make the tables of an empty database at the same time: whoever comes second tries again.
    """
    from optuna.storages import RDBStorage, get_storage
    from sqlalchemy.exc import NoSuchModuleError

    url = database(address)
    driver = url.get_driver_name() if address.scheme != "sqlite" else "pysqlite"
    name = TIMEOUTS.get(driver)
    engine = {
        "pool_pre_ping": True,
        "connect_args": {name: WAIT if driver != "pysqlite" else 60} if name else {},
    }
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    error: Exception | None = None
    for _ in range(5):
        try:
            storage = RDBStorage(text, engine_kwargs=engine)
        except (ImportError, NoSuchModuleError):
            raise ConfigError(
                f"search.storage: the driver {url.drivername} is not installed. {INSTALL} has those of "
                "postgresql:// and mysql://"
            ) from None
        except RuntimeError as old:  # tables of another version of Optuna
            raise ConfigError(
                f"search.storage: {address.shown}: {_first(old)} Use the same version of Optuna everywhere."
            ) from None
        except troubles() as found:
            error = found
            if not re.search(r"already exists|duplicate|UNIQUE|23505|42P07|42710|locked", str(found)):
                break
        else:
            if address.scheme == "sqlite":
                _whole_transactions(storage.engine)
            return get_storage(storage)
    assert error is not None
    where = f"{url.host or 'localhost'}:{url.port}" if url.port else url.host or str(url.database)
    raise ConfigError(_explained(error, address, where, str(url.username or ""))) from None


def _whole_transactions(engine: Any) -> None:
    """Let SQLite lock before it reads, as SQLAlchemy documents it: otherwise two processes take the same trial."""
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def plain(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()


def troubles() -> tuple[type[Exception], ...]:
    """What is raised when a storage does not answer, for whatever reason."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    found: list[type[Exception]] = [StorageInternalError, SQLAlchemyError, ConnectionError, socket.error]
    try:
        import grpc

        found.append(grpc.RpcError)
    except ImportError:
        pass
    return tuple(found)


REASONS = (
    (r"password authentication failed|28P01|28000|no password supplied|Access denied|1045|needs password",
     "{shown}: the server refuses {user}. Set {variable} to the right password."),
    (r"3D000|database \S+ does not exist|Unknown database|1049",
     "{shown}: there is no such database. Make it first, as with createdb."),
    (r"unable to open database file", "{shown}: the file cannot be opened. Its folder must be there and writable."),
    (r"not a database", "{shown}: is no file of SQLite."),
    (r"42501|permission denied|readonly|read-only",
     "{shown}: {user} may not write there. Give the user the right to make tables."),
    (r"refused|create a connection|connect to server|Can't connect|timeout|timed out|not known|UNAVAILABLE|resolution",
     "{shown}: no server answers at {where}. Start it, or mend the address."),
)  # fmt: skip


def _explained(error: Exception, address: Address, where: str, user: str = "") -> str:
    """The message of a storage that could not be opened."""
    told = f"{error} {error.__cause__ or ''}"
    words = {
        "shown": address.shown, "where": where, "user": f"the user {user}" if user else "the user",
        "variable": PASSWORDS.get(address.scheme, "the password"),
    }  # fmt: skip
    for pattern, text in REASONS:
        if re.search(pattern, told):
            return "search.storage: " + text.format(**words)
    return f"search.storage: {address.shown}: {brief(error)}"


def brief(error: BaseException) -> str:
    """What a storage says, in one line without passwords."""
    details = getattr(error, "details", None)  # of gRPC
    said = details() if callable(details) else error.__cause__ or error
    return without_passwords(_first(said))[:300]


def _first(text: object) -> str:
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")
