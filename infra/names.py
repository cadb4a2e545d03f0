"""What things are called: one prefix for each stage, so that stages share an engine in peace."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from infra.errors import StageError

STACK = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]|[a-z]")


@dataclass(frozen=True)
class Names:
    """Every name that the stage's parts know one another by."""

    application: str
    stack: str
    beside: int = 0
    """The major version of a PostgreSQL that was made beside the stage's first, for an upgrade; 0
    for the first."""

    def __post_init__(self) -> None:
        if STACK.fullmatch(self.stack) is None:
            raise StageError(
                "expected a stage's name of up to 40 lower-case letters, digits and dashes, found "
                f"{ascii(self.stack)[:80]}",
                advice="choose another name: pulumi stack init NAME",
            )

    def of_upgrade(self, major: int) -> Names:
        """The same stage's, of its PostgreSQL of that version; 0 for the first."""
        return replace(self, beside=major)

    @property
    def suffix(self) -> str:
        """What the parts of that PostgreSQL have at the end of their names."""
        return f"-{self.beside}" if self.beside else ""

    # The engine's names: unique on the engine.

    @property
    def prefix(self) -> str:
        """What the engine's names of this stage begin with."""
        return f"{self.application.replace('_', '-')}-{self.stack}"

    @property
    def network(self) -> str:
        return self.prefix

    @property
    def postgres(self) -> str:
        return f"{self.prefix}-{self.postgres_host}"

    @property
    def pooler(self) -> str:
        return f"{self.prefix}-pgbouncer"

    @property
    def job(self) -> str:
        """The container that checks, migrates and upgrades, and ends."""
        return f"{self.prefix}-migration"

    @property
    def sync(self) -> str:
        """The container that follows both sides' changes until the stage is settled."""
        return f"{self.prefix}-sync"

    @property
    def example(self) -> str:
        return f"{self.prefix}-example"

    @property
    def gate(self) -> str:
        """The container before an application that reads its connection only at start."""
        return f"{self.prefix}-gate"

    @property
    def leader(self) -> str:
        """Of haproxy, by which the one of several servers is reached that takes writes."""
        return f"{self.prefix}-{self.leader_host}"

    @property
    def backup(self) -> str:
        return f"{self.prefix}-{self.backup_host}"

    @property
    def drill(self) -> str:
        return f"{self.prefix}-{self.drill_host}"

    # Names on the stage's own network: the same in every stage.

    pooler_host = "pgbouncer"
    leader_host = "leader"

    @property
    def postgres_host(self) -> str:
        """What the stage's containers call the PostgreSQL."""
        return f"postgres{self.suffix}"

    @property
    def backup_host(self) -> str:
        """What the stage's containers call the host of the backups."""
        return f"backup{self.suffix}"

    @property
    def drill_host(self) -> str:
        return f"drill{self.suffix}"

    # PostgreSQL's names.

    @property
    def database(self) -> str:
        return self.application

    @property
    def application_role(self) -> str:
        """The application's first login: it reads and writes rows, and no more."""
        return self.application

    @property
    def second_role(self) -> str:
        """Another login with the application's rights: the two take turns when passwords rotate, so
        that the one in use stays valid until the application has moved to the other."""
        return f"{self.application}_second"

    def serving_role(self, version: int) -> str:
        """The application's login of that version of the passwords."""
        return self.application_role if version % 2 else self.second_role

    @property
    def owner_role(self) -> str:
        """Owns the database and its tables; it cannot log in."""
        return f"{self.application}_owner"

    @property
    def migration_role(self) -> str:
        """The job's login, which acts as the owner."""
        return f"{self.application}_migration"

    @property
    def reader_role(self) -> str:
        """For reports and people: it reads rows and never writes."""
        return f"{self.application}_read"

    @property
    def monitor_role(self) -> str:
        """The exporter's login: it reads statistics and no row."""
        return f"{self.application}_monitor"

    @property
    def backup_role(self) -> str:
        """Starts and ends base backups; it cannot connect to the application's database."""
        return f"{self.application}_backup"

    @property
    def replication_role(self) -> str:
        """By whom several servers follow the one that leads."""
        return f"{self.application}_replication"

    @property
    def rewind_role(self) -> str:
        """By whom one that has led looks where the others went on without it."""
        return f"{self.application}_rewind"

    @property
    def upgrade_role(self) -> str:
        """The superuser by whom two servers follow one another; there for an upgrade alone."""
        return f"{self.application}_upgrade"

    pooler_role = "pooler"
    pooler_database = "pooler"
    pooler_admin = "pooler_admin"
