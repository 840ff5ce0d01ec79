"""Commands for a DataJoint database: audit, migrate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from .options import JOBS, PLACE, SOURCE, command, flag, option
from .output import CHECK_FAILED, UNREACHABLE, USAGE, Failure, report


@command(
    "Compare a store with the rows that refer to it.",
    click.argument("schemas", nargs=-1, required=True),
    option("--store", "Store in DataJoint's configuration; the default store if not given.", metavar="NAME"),
    click.option("--verify", "thorough", is_flag=True, help="Read every chunk of every movie."),
    JOBS,
)
def audit(schemas: tuple[str, ...], store: str | None, thorough: bool, jobs: int, as_json: bool) -> int:
    """Compare a store with the rows of DataJoint SCHEMAS that refer to it; changes nothing.

    Database and stores come from DataJoint's configuration (datajoint.json, or variables such as DJ_HOST). Name every
    schema whose rows may refer to the same movies.

    Exit code 1 if something is orphaned, missing, damaged or unreadable; each is listed.

    \b
    dj-photon audit lab_imaging
    dj-photon audit lab_imaging lab_analysis --store archive --verify --json
    """
    with _database_errors() as connection:
        from .. import audit_store

        opened = [_schema(connection, name) for name in schemas]
        found = audit_store(opened, store, verify=thorough, jobs=jobs)
    report(as_json, {"ok": bool(found), **asdict(found)}, str(found))
    return 0 if found else CHECK_FAILED


@command(
    "Copy the movies of a DataJoint column to a photon column.",
    click.argument("column", metavar="SCHEMA.TABLE.COLUMN"),
    option("--to", "The photon column; a table of another schema is SCHEMA.TABLE.COLUMN.", metavar="TABLE.COLUMN"),
    flag("--dry-run", "Only examine a few movies, and say what it would take."),
    option("--sample", "Movies to examine; 0 for all.", 10, type=click.IntRange(min=0)),
    option("--limit", "Movies to try at most.", type=click.IntRange(min=1)),
    flag("--retry", "Try those again that failed before."),
    option("--root", "Folder that relative paths start from.", type=PLACE),
    flag("--forget-originals", "Verify the migrated movies again, and set their old column to NULL."),
    flag("--yes", "Do not ask before --forget-originals."),
    *SOURCE,
)
def migrate(
    column: str,
    to: str | None,
    dry_run: bool,
    sample: int,
    limit: int | None,
    retry: bool,
    root: str | None,
    forget_originals: bool,
    yes: bool,
    as_json: bool,
    **which: Any,
) -> int:
    """Copy the movies of SCHEMA.TABLE.COLUMN to a photon column of the same table, or of one with the same primary key.

    Each movie is compared with its original, count by count, before its row refers to it. Nothing is deleted. Run it
    again after any interruption, and on as many machines as you like at the same time: a ledger in the schema of the
    photon column shares the movies out. Those that cannot be migrated are listed, with exit code 1; the others are
    still migrated.

    Tables are named as classes (TwoPhotonScan) or as in the database (two_photon_scan). Database and stores come from
    DataJoint's configuration.

    \b
    dj-photon migrate lab.Recording.movie --to Recording.photons --dry-run
    dj-photon migrate lab.Recording.movie --to Recording.photons
    dj-photon migrate lab.Recording.movie --to Recording.photons --forget-originals
    """
    if to is None:
        raise click.UsageError("--to is missing: name the photon column, such as --to Recording.photons")
    if dry_run and forget_originals:
        raise click.UsageError("--dry-run and --forget-originals contradict each other: give one of them")
    with _database_errors() as connection:
        from .. import Migration

        (schema, name, old), (to_schema, to_name, new) = _parts(column, None), _parts(to, column)
        given = {name: value for name, value in which.items() if value is not None}
        tables = _table(connection, schema, name), _table(connection, to_schema, to_name)
        migration = Migration(tables[0], old, new, tables[1], root=root, **given)
        if dry_run:
            plan = migration.plan(sample or None)
            document = {"ok": not plan.problems, **asdict(plan), "ratio": plan.ratio}
            report(as_json, document, str(plan))
            return CHECK_FAILED if plan.problems else 0
        if forget_originals:
            if not yes:
                click.confirm(f"Set {column} to NULL in the rows that are migrated?", abort=True, err=True)
            forgotten = migration.forget_originals(prompt=False)
            report(as_json, {"ok": bool(forgotten), **asdict(forgotten)}, str(forgotten))
            return 0 if forgotten else CHECK_FAILED
        status = migration.run(limit=limit, retry=retry)
        report(as_json, {"ok": not status.failed, **asdict(status), "remaining": status.remaining}, str(status))
        return CHECK_FAILED if status.failed else 0


@contextmanager
def _database_errors() -> Iterator[Any]:
    """The connection; an error of DataJoint ends the command."""
    import datajoint as dj

    try:
        connection = dj.conn()
    except Exception as error:  # of any database driver
        raise Failure(f"the database cannot be reached: {error}", UNREACHABLE) from error
    try:
        yield connection
    except dj.errors.LostConnectionError as error:
        raise Failure(f"the database cannot be reached any more: {error}", UNREACHABLE) from error
    except dj.DataJointError as error:
        raise Failure(str(error), USAGE) from error


def _schema(connection: Any, name: str) -> Any:
    """A schema that is there already."""
    import datajoint as dj

    return dj.Schema(name, connection=connection, create_schema=False, create_tables=False)


def _parts(name: str, beside: str | None) -> tuple[str, str, str]:
    """Schema, table and column of a name; the schema may be that of another name."""
    parts = name.split(".")
    if len(parts) == 2 and beside is not None:
        parts = [beside.split(".")[0], *parts]
    if len(parts) != 3 or not all(parts):
        form = "SCHEMA.TABLE.COLUMN" if beside is None else "TABLE.COLUMN"
        raise click.UsageError(f"{name!r} names no column: give {form}, such as lab.Recording.movie"[:200])
    return parts[0], parts[1], parts[2]


def _table(connection: Any, schema: str, name: str) -> Any:
    """The table of a class name or of a name in the database, in any tier."""
    import datajoint as dj

    found = _schema(connection, schema).list_tables()
    plain = dj.utils.from_camel_case(name) if name[:1].isupper() else name
    matching = [table for table in found if name == table or table.lstrip("#_") == plain]
    if not matching:
        raise Failure(f"the schema {schema} has no table {name}: it has {', '.join(found) or 'none'}", USAGE)
    return dj.FreeTable(connection, connection.adapter.make_full_table_name(schema, matching[0]))
