"""A self-contained page of a run: what was measured, what follows, and how far to trust it."""
