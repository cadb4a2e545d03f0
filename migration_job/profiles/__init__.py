"""Profiles shipped with the job."""
