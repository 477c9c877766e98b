"""The checks of a rehearsal, one file per subject. Each has `check(rehearsed)`, which yields findings."""
