"""One file for each command of `harp`: arguments in, exit code out.

`arguments` has what they share. Each command loads what it needs itself, so that `harp health` stays cheap.
"""
