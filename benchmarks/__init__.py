"""Ours beside its peers, in the same run and in turns: `make bench`, `make bench-quick`."""
