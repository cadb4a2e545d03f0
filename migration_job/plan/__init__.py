"""The plan: target types and rules, profile, policy, preflight. Writes nothing."""
