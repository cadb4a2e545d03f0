"""The demonstration: a database alike in kind to RadCase's, and the whole way on one machine."""
