"""The tables in which an application's migrations keep book of themselves.

They are a side's own: what has been applied to PostgreSQL's schema is not what was applied to
SQLite's, even where the two have the same versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from migration_job.values import fold

KNOWN: Mapping[str, tuple[str, ...]] = {
    "django_migrations": ("app", "name"),
    "south_migrationhistory": ("app_name", "migration"),
    "alembic_version": ("version_num",),
    "migrate_version": ("repository_id", "version"),
    "yoyo_migration": ("migration_id",),
    "_yoyo_migration": ("migration_id",),
    "_yoyo_version": (),
    "_yoyo_log": (),
    "yoyo_lock": (),
    "peewee_migrations": ("name",),
    "migratehistory": ("name",),
    "aerich": (),
    "knex_migrations": ("name",),
    "knex_migrations_lock": (),
    "SequelizeMeta": ("name",),
    "_prisma_migrations": ("migration_name",),
    "migrations": ("name",),
    "typeorm_metadata": (),
    "mikro_orm_migrations": ("name",),
    "kysely_migration": ("name",),
    "kysely_migration_lock": (),
    "__drizzle_migrations": (),
    "schema_migrations": ("version",),
    "ar_internal_metadata": (),
    "_sqlx_migrations": ("version",),
    "__diesel_schema_migrations": ("version",),
    "seaql_migrations": ("version",),
    "refinery_schema_history": ("version",),
    "__EFMigrationsHistory": ("MigrationId",),
    "flyway_schema_history": ("version",),
    "databasechangelog": ("id",),
    "databasechangeloglock": (),
    "goose_db_version": ("version_id",),
    "gorp_migrations": ("id",),
    "gormigrate": ("id",),
    "bun_migrations": ("name",),
    "bun_migration_locks": (),
    "atlas_schema_revisions": ("version",),
    "ecto_migrations": ("version",),
    "doctrine_migration_versions": ("version",),
    "phinxlog": ("version",),
}
"""Each with the columns that name a version; without any where the two sides' rows cannot be
compared (hashes of each engine's own statements, locks)."""


def is_bookkeeping(name: str, further: Iterable[str] = ()) -> bool:
    """Whether a table of that name is one; ``further`` are the policy's own."""
    return version_columns(name) is not None or fold(name) in {fold(other) for other in further}


def version_columns(name: str) -> tuple[str, ...] | None:
    """The columns that name a version in a known table; None for any other table."""
    return next((columns for known, columns in KNOWN.items() if fold(known) == fold(name)), None)
