"""The live phases: catch-up, switch, sync, rollback, settle."""
