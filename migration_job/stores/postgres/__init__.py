"""PostgreSQL: schema, load, change application, reverse capture, the run's own records."""
