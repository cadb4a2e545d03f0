"""One module per command of ``migration-job``; each is thin and calls the rooms."""
