"""A small RadCase-like HTTP application that follows its database.

It stands for an application that is to be migrated while it serves: the `dev` stage runs it in a
container, `make demo` and the tests as a process. It imports nothing from the migration job; all
that it knows of a migration is the file `database.json` (docs/how-to/following-the-connection.md).
"""
