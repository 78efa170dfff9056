"""The database: what of it is saved, how it comes back under another name, and how the two are compared.

What is saved is a line of JSON, which says what is in it, and after it the dump as pg_dump writes it. The rows and a checksum of
each table are counted in the very transaction that the dump is of, so that a restored database can be held against them.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from .repository import BackupError, private, reason

CHUNK = 2**20
LARGER = 1.5
"""How much more than what was saved its coming back may take: its log is on the same disk."""
LOADING = "backup_loading"
"""What comes back has this name until it is whole, and nobody's where it is to be."""
# The driver has no types here, for it is Debian's.
psycopg2: Any = import_module("psycopg2")
sql: Any = import_module("psycopg2.sql")
Tables = dict[str, list[Any]]
"""Table → its rows, and the sum of a digest of each: in whichever order they come, on whichever version."""

_TABLES = """
  SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ORDER BY 1"""
_DIGEST = "SELECT count(*), coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0)::text FROM ONLY {} t"
# How a value is written depends on these; what is compared is written alike.
_ALIKE = """
  SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres';
  SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; SET LOCAL row_security = off; SET LOCAL search_path = ''"""


def credentials() -> None:
    """The file that PostgreSQL's clients read the password from: no command line and no variable has it."""
    password = Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().rstrip("\n")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    os.environ |= {
        "PGPASSFILE": private("pgpass", f"*:*:*:*:{escaped}\n"),
        # A pool of connections knows no snapshots, and makes no databases.
        "PGHOST": os.environ.get("DATABASE_DIRECT_HOST") or os.environ["DATABASE_HOST"],
        "PGPORT": os.environ["DATABASE_PORT"],
        "PGUSER": os.environ["DATABASE_USER"],
        "PGDATABASE": os.environ["DATABASE_NAME"],
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "backup",
    }


def dump() -> Iterator[bytes]:
    """What is saved, in pieces.

    Raises:
        BackupError: it can't be read, or not to its end.
    """
    with _connected() as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # It is open for as long as pg_dump takes.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0")
        cursor.execute("SELECT pg_export_snapshot()")
        (snapshot,) = cursor.fetchone()
        yield json.dumps(_header(cursor)).encode() + b"\n"
        command = ["pg_dump", "--no-password", "--format=custom", "--compress=0", f"--snapshot={snapshot}"]
        yield from _printed(command)


def restore(stream: Any, name: str, then: Sequence[Path] = ()) -> Mapping[str, Any]:
    """A new database of this name from what was saved, found to be equal to it; `then` are SQL files it is given before that.

    Until then it has a name that nothing looks for. Whatever fails, no half of it stays; what a run left that was killed goes
    with the next. Returns what the dump says of itself.

    Raises:
        BackupError: there is a database of that name, the dump is not whole, or what came back is not what was saved.
    """
    _refuse_there(name)
    header = load(stream, LOADING)
    try:
        for file in then:
            with file.open("rb") as text:
                command = ["psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
                _fed([*command, "--single-transaction", "--dbname", LOADING], text)
        with _server() as cursor:
            cursor.execute(_said("ALTER DATABASE {} RENAME TO {}", LOADING, name))
            cursor.execute(_said("GRANT CONNECT ON DATABASE {} TO PUBLIC", name))
    except BaseException:
        drop(LOADING)
        raise
    return header


def load(stream: Any, scratch: str) -> Mapping[str, Any]:
    """What was saved in a database of this name, made anew for it, and found to be equal; only its owner may connect to it.

    Raises:
        BackupError: there is no room for it, the dump is not whole, or what came back is not what was saved.
    """
    header: dict[str, Any] = json.loads(stream.readline() or b"{}")
    if "tables" not in header:
        raise BackupError("what is kept there is no backup of a database")
    drop(scratch)
    _refuse_full(header.get("size", 0))
    _create(scratch, header)
    try:
        _fed(["pg_restore", "--no-password", "--no-owner", "--exit-on-error", "--dbname", scratch], stream)
        if wrong := "; ".join(differences(header["tables"], _counted(scratch))):
            raise BackupError(f"what came back is not what was saved: {wrong}")
    except BaseException:
        drop(scratch)
        raise
    return header


def drop(name: str) -> None:
    """Remove a database that was made here."""
    with _server() as cursor:
        cursor.execute(_said("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))


def differences(saved: Mapping[str, Sequence[Any]], found: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """What of the tables is not as it was, in words."""
    for table in sorted({*saved, *found}):
        before, after = saved.get(table), found.get(table)
        if before is None or after is None:
            yield f"{table} is {'missing' if after is None else 'new'}"
        elif before[0] != after[0]:
            yield f"{table} has {after[0]} rows, and had {before[0]}"
        elif before[1] != after[1]:
            yield f"{table} has other rows than it had"


def _header(cursor: Any) -> dict[str, Any]:
    cursor.execute(
        "SELECT current_database(), current_setting('server_version'), pg_encoding_to_char(encoding), datcollate, datctype,"
        " pg_database_size(oid) FROM pg_database WHERE datname = current_database()"
    )
    database, server, encoding, collate, ctype, size = cursor.fetchone()
    cursor.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")
    names = [name for (name,) in cursor.fetchall()]
    # Passwords are the configuration's, and without them no right is needed that an owner has not.
    roles = b"".join(_printed(["pg_dumpall", "--no-password", "--roles-only", "--no-role-passwords"])).decode()
    return {
        "database": database,
        "server": server,
        "size": size,
        "like": {"ENCODING": encoding, "LC_COLLATE": collate, "LC_CTYPE": ctype},
        "role_names": names,
        "roles": roles,
        "tables": _tables(cursor),
    }


def _tables(cursor: Any) -> Tables:
    cursor.execute(_ALIKE)
    cursor.execute(_TABLES)
    found: Tables = {}
    for (table,) in cursor.fetchall():
        cursor.execute(_DIGEST.format(table))
        found[table] = list(cursor.fetchone())
    return found


def _counted(name: str) -> Tables:
    with _connected(name) as connection, connection.cursor() as cursor:
        return _tables(cursor)


def _refuse_there(name: str) -> None:
    with _server() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if cursor.fetchone():
            raise BackupError(f"there is a database {name}, and it is not touched; give a new name")


def _refuse_full(size: int) -> None:
    """A disk that is full stops the database that is live: what has no room is not begun, where it is known how much there is."""
    room = int(os.environ.get("BACKUP_ROOM", "0"))
    with _server() as cursor:
        # Of others' databases the size is not told.
        cursor.execute(
            "SELECT sum(pg_database_size(oid)) FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')"
        )
        (taken,) = cursor.fetchone()
    needed = int(taken) + size * LARGER
    if room and needed > room:
        raise BackupError(
            f"there is no room beside the database that is live: {_mib(taken)} are taken, what comes back takes up to "
            f"{_mib(size * LARGER)}, and the volume has {_mib(room)}; drop databases that nobody needs, or set "
            f"environment.tiers.database.storage to more than {_mib(needed)} and run `make up`"
        )


def _mib(count: float) -> str:
    return f"{-(-int(count) // 2**20)}Mi"


def _create(name: str, header: Mapping[str, Any]) -> None:
    like = cast(Mapping[str, str], header["like"])
    with _server() as cursor:
        try:
            for role in header["role_names"]:
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
                if not cursor.fetchone():
                    # Rights were given to it. It may not log in: whoever it is for gives it a password.
                    cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
            options = " ".join(f"{key} {{}}" for key in like)
            made = sql.SQL("CREATE DATABASE {} TEMPLATE template0 " + options)
            cursor.execute(made.format(sql.Identifier(name), *(sql.Literal(value) for value in like.values())))
            cursor.execute(_said("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", name))
        except psycopg2.Error as error:
            raise BackupError(f"database {name} can't be made: {reason(str(error))}") from None


def _said(statement: str, *names: str) -> Any:
    return sql.SQL(statement).format(*(sql.Identifier(name) for name in names))


@contextmanager
def _server() -> Generator[Any]:
    """Where databases are made beside the one that is live; also where that one answers reads only (`make move`)."""
    with _connected() as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SET default_transaction_read_only = off")
        yield cursor


@contextmanager
def _connected(name: str | None = None) -> Generator[Any]:
    try:
        connection = psycopg2.connect(**({"dbname": name} if name else {}))
    except psycopg2.Error as error:
        instead = _instead_of(name or os.environ["PGDATABASE"])
        raise BackupError(f"the database can't be reached: {reason(str(error))}{instead}") from None
    try:
        with closing(connection):
            yield connection
    except psycopg2.Error as error:
        raise BackupError(f"the database says: {reason(str(error))}") from None


def _instead_of(name: str) -> str:
    """Which databases there are where this one is not; nothing where there is no answer."""
    try:
        with closing(psycopg2.connect(dbname="template1")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
            there = [found for (found,) in cursor.fetchall()]
    except psycopg2.Error:
        return ""
    return "" if name in there else f"; there are {', '.join(there)}"


def _printed(command: Sequence[str]) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as wrong:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=wrong)
        assert process.stdout
        try:
            while chunk := process.stdout.read(CHUNK):
                yield chunk
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        if code:
            wrong.seek(0)
            raise BackupError(f"{command[0]}: {reason(wrong.read().decode())}")


def _fed(command: Sequence[str], stream: Any) -> None:
    with tempfile.TemporaryFile() as wrong:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=wrong)
        assert process.stdin
        try:
            while chunk := stream.read(CHUNK):
                process.stdin.write(chunk)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended, and says why
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait():
            wrong.seek(0)
            raise BackupError(f"{command[0]}: {reason(wrong.read().decode())}")
