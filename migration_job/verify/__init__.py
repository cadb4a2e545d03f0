"""Verification: it imports nothing of the copier and no rule's code.

It may import ``migration_job.plan.model`` (data only) and ``migration_job.stores.sqlite``.
"""
