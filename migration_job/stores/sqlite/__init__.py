"""SQLite: opening, catalogue, snapshot, backup, change capture, fence."""
