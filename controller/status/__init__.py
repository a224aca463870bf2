"""The status page: what is known, shown; never a way to change anything (GET only)."""
