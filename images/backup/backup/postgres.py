"""Dump of a database, restore into a new database, and comparison of the two.

The saved stream is one line of JSON (the header), followed by the output of pg_dump. The header has the number of rows and a
checksum of each table. They are read in the transaction of the dump, so a restored database can be compared with them.
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

from .repository import BackupError, private_file, reason

CHUNK_SIZE = 2**20
"""Bytes to read at once."""
RESTORE_FACTOR = 1.5
"""Disk space that a restore needs, relative to the size of the saved database. The write-ahead log is on the same disk."""
LOADING_DATABASE = "backup_loading"
"""Name of a restored database until it is complete. Then it gets its final name."""
# Load the driver dynamically. It is a Debian package of the image, so it has no types here.
psycopg2: Any = import_module("psycopg2")
sql: Any = import_module("psycopg2.sql")
Tables = dict[str, list[Any]]
"""Number of rows and checksum of each table. The checksum does not depend on the order of rows or on the server's version."""

_TABLES = """
  SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ORDER BY 1"""
_CHECKSUM = "SELECT count(*), coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0)::text FROM ONLY {} t"
# These settings determine the text of values. Both databases need the same settings for the comparison.
_TEXT_FORMAT = """
  SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres';
  SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; SET LOCAL row_security = off; SET LOCAL search_path = ''"""


def write_credentials() -> None:
    """Set the variables of PostgreSQL's clients. The password is in a private file, not on a command line or in a variable."""
    password = Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().rstrip("\n")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    os.environ |= {
        "PGPASSFILE": private_file("pgpass", f"*:*:*:*:{escaped}\n"),
        # Connect to the server itself: a connection pooler can't export snapshots or create databases.
        "PGHOST": os.environ.get("DATABASE_DIRECT_HOST") or os.environ["DATABASE_HOST"],
        "PGPORT": os.environ["DATABASE_PORT"],
        "PGUSER": os.environ["DATABASE_USER"],
        "PGDATABASE": os.environ["DATABASE_NAME"],
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "backup",
    }


def dump() -> Iterator[bytes]:
    """Yield the header and the dump of the database, in chunks.

    Raises:
        BackupError: the database can't be reached, or the dump failed.
    """
    with _connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # The transaction stays open and idle until pg_dump ends.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0")
        cursor.execute("SELECT pg_export_snapshot()")
        (snapshot,) = cursor.fetchone()
        yield json.dumps(_header(cursor)).encode() + b"\n"
        command = ["pg_dump", "--no-password", "--format=custom", "--compress=0", f"--snapshot={snapshot}"]
        yield from _output(command)


def restore(stream: Any, name: str, sql_files: Sequence[Path] = ()) -> Mapping[str, Any]:
    """Restore a dump into a new database, and compare the data with the header.

    The new database has a temporary name until it is complete. If the restore fails, the new database is dropped. If the restore is
    killed, the next one drops it.

    Args:
        stream: header and dump, as `dump` yields them.
        name: name of the new database.
        sql_files: SQL files that run after the comparison and before the database gets its name.

    Returns:
        The header.

    Raises:
        BackupError: a database of that name exists, the dump is incomplete, or the restored data differs from the header.
    """
    _refuse_existing_database(name)
    header = load(stream, LOADING_DATABASE)
    try:
        for file in sql_files:
            with file.open("rb") as text:
                command = ["psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
                _feed([*command, "--single-transaction", "--dbname", LOADING_DATABASE], text)
        with _server_cursor() as cursor:
            cursor.execute(_statement("ALTER DATABASE {} RENAME TO {}", LOADING_DATABASE, name))
            cursor.execute(_statement("GRANT CONNECT ON DATABASE {} TO PUBLIC", name))
    except BaseException:
        drop(LOADING_DATABASE)
        raise
    return header


def load(stream: Any, scratch: str) -> Mapping[str, Any]:
    """Restore a dump into the database `scratch`, and compare the data with the header.

    An existing database `scratch` is dropped first. Only the owner may connect to the new one.

    Returns:
        The header.

    Raises:
        BackupError: the disk has too little space, the dump is incomplete, or the restored data differs from the header.
    """
    header: dict[str, Any] = json.loads(stream.readline() or b"{}")
    if "tables" not in header:
        raise BackupError(
            "the input is not a backup of a database; choose another backup, or read the error of `backup dump`"
        )
    drop(scratch)
    _check_space(header.get("size", 0))
    _create(scratch, header)
    try:
        _feed(["pg_restore", "--no-password", "--no-owner", "--exit-on-error", "--dbname", scratch], stream)
        if problems := "; ".join(differences(header["tables"], _read_tables(scratch))):
            raise BackupError(f"the restored data differs from the backup: {problems}")
    except BaseException:
        drop(scratch)
        raise
    return header


def drop(name: str) -> None:
    """Drop a database if it exists, and end its connections."""
    with _server_cursor() as cursor:
        cursor.execute(_statement("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))


def differences(saved: Mapping[str, Sequence[Any]], restored: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield a text for each table that differs between the saved and the restored database."""
    for table in sorted({*saved, *restored}):
        before, after = saved.get(table), restored.get(table)
        if before is None or after is None:
            yield f"{table} is {'missing' if after is None else 'new'}"
        elif before[0] != after[0]:
            yield f"{table} has {after[0]} rows instead of {before[0]}"
        elif before[1] != after[1]:
            yield f"{table} has rows with other values"


def _header(cursor: Any) -> dict[str, Any]:
    cursor.execute(
        "SELECT current_database(), current_setting('server_version'), pg_encoding_to_char(encoding), datcollate, datctype,"
        " pg_database_size(oid) FROM pg_database WHERE datname = current_database()"
    )
    database, server, encoding, collate, ctype, size = cursor.fetchone()
    cursor.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")
    names = [name for (name,) in cursor.fetchall()]
    # Leave out the passwords: the configuration sets them, and only a superuser may read them.
    roles = b"".join(_output(["pg_dumpall", "--no-password", "--roles-only", "--no-role-passwords"])).decode()
    return {
        "database": database,
        "server": server,
        "size": size,
        "like": {"ENCODING": encoding, "LC_COLLATE": collate, "LC_CTYPE": ctype},
        "role_names": names,
        "roles": roles,
        "tables": _checksums(cursor),
    }


def _checksums(cursor: Any) -> Tables:
    cursor.execute(_TEXT_FORMAT)
    cursor.execute(_TABLES)
    tables: Tables = {}
    for (table,) in cursor.fetchall():
        cursor.execute(_CHECKSUM.format(table))
        tables[table] = list(cursor.fetchone())
    return tables


def _read_tables(name: str) -> Tables:
    """Return the number of rows and the checksum of each table of the database `name`."""
    with _connect(name) as connection, connection.cursor() as cursor:
        return _checksums(cursor)


def _refuse_existing_database(name: str) -> None:
    with _server_cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if cursor.fetchone():
            raise BackupError(f"database {name} already exists; give another name")


def _check_space(size: int) -> None:
    """Refuse a restore that would fill the disk, because a full disk stops the live database.

    Check nothing if the size of the disk is unknown.

    Args:
        size: size of the saved database in bytes.
    """
    room = int(os.environ.get("BACKUP_ROOM", "0"))
    with _server_cursor() as cursor:
        # PostgreSQL refuses to return the size of a database to a user that may not connect to it.
        cursor.execute(
            "SELECT sum(pg_database_size(oid)) FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')"
        )
        (used,) = cursor.fetchone()
    needed = int(used) + size * RESTORE_FACTOR
    if room and needed > room:
        raise BackupError(
            f"the database's volume is too small for a restored copy: {_mebibytes(used)} of {_mebibytes(room)} are used, and "
            f"the copy needs up to {_mebibytes(size * RESTORE_FACTOR)}; drop databases that are no longer needed, or set "
            f"environment.tiers.database.storage to more than {_mebibytes(needed)} and run `make up`"
        )


def _mebibytes(count: float) -> str:
    return f"{-(-int(count) // 2**20)}Mi"


def _create(name: str, header: Mapping[str, Any]) -> None:
    """Create an empty database with the encoding and locale of the saved one. Create missing roles without the right to log in."""
    options = cast(Mapping[str, str], header["like"])
    with _server_cursor() as cursor:
        try:
            for role in header["role_names"]:
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
                if not cursor.fetchone():
                    # The dump grants rights to the role. It can't log in until somebody sets a password.
                    cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
            words = " ".join(f"{key} {{}}" for key in options)
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 " + words)
            cursor.execute(statement.format(sql.Identifier(name), *(sql.Literal(value) for value in options.values())))
            cursor.execute(_statement("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", name))
        except psycopg2.Error as error:
            raise BackupError(f"database {name} can't be created: {reason(str(error))}") from None


def _statement(text: str, *names: str) -> Any:
    """Return an SQL statement with quoted names."""
    return sql.SQL(text).format(*(sql.Identifier(name) for name in names))


@contextmanager
def _server_cursor() -> Generator[Any]:
    """Return a cursor that can create and drop databases, even if the live database is read-only (`make move`)."""
    with _connect() as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SET default_transaction_read_only = off")
        yield cursor


@contextmanager
def _connect(name: str | None = None) -> Generator[Any]:
    """Connect to the database `name`, by default to the configured one.

    Raises:
        BackupError: the connection failed, or a statement failed while the connection was in use.
    """
    try:
        connection = psycopg2.connect(**({"dbname": name} if name else {}))
    except psycopg2.Error as error:
        hint = _existing_databases(name or os.environ["PGDATABASE"])
        raise BackupError(f"the database can't be reached: {reason(str(error))}{hint}") from None
    try:
        with closing(connection):
            yield connection
    except psycopg2.Error as error:
        raise BackupError(f"the database reports: {reason(str(error))}") from None


def _existing_databases(missing: str) -> str:
    """Return the server's databases as the end of an error message, if the database `missing` does not exist.

    Return an empty text if it exists or the server can't be reached.
    """
    try:
        with closing(psycopg2.connect(dbname="template1")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
            names = [name for (name,) in cursor.fetchall()]
    except psycopg2.Error:
        return ""
    return "" if missing in names else f"; use one of {', '.join(names)}"


def _output(command: Sequence[str]) -> Iterator[bytes]:
    """Run a command, and yield its output in chunks."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout
        try:
            while chunk := process.stdout.read(CHUNK_SIZE):
                yield chunk
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        if code:
            errors.seek(0)
            raise BackupError(f"{command[0]}: {reason(errors.read().decode())}")


def _feed(command: Sequence[str], stream: Any) -> None:
    """Run a command with a stream as its standard input."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
        assert process.stdin
        try:
            while chunk := stream.read(CHUNK_SIZE):
                process.stdin.write(chunk)
            process.stdin.close()
        except BrokenPipeError:
            pass  # The command has ended. Its errors are read below.
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait():
            errors.seek(0)
            raise BackupError(f"{command[0]}: {reason(errors.read().decode())}")
