"""One thing that was looked at."""

from dataclasses import dataclass

# Fine; an extra is missing; slow, or failing in some cases; a plain merge fails.
OK, MISSING, SLOW, FAILS = "ok", "missing", "slow", "fails"


@dataclass(frozen=True)
class Check:
    """What was found, and what follows from it.

    Attributes:
        state: One of those above.
        why: What would be slow or fail, and why; empty where nothing would.
        hint: What to do about it.
    """

    state: str
    topic: str
    found: str
    why: str = ""
    hint: str = ""
