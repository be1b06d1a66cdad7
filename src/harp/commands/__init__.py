"""One file for each command of `harp`: arguments in, exit code out."""
