"""Verification. Imports nothing from the copier (``migration_job.target``) and no rule's code.

It may import ``migration_job.plan.model`` (data only) and ``migration_job.source``.
"""
