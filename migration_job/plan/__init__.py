"""The plan: target types and rules, profile, policy, preflight. Writes nothing."""

import logging

# What sqlglot cannot parse becomes a finding here; its own warnings would only repeat it. Said for
# whichever module of the plan is the first to load it.
logging.getLogger("sqlglot").setLevel(logging.ERROR)
