"""The two kinds of store, each by itself: neither knows the other."""
