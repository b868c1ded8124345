"""Whether a larger base size leans on smaller ones of the same experts."""

from mergeplan.errors import InputError

# Where enough carries over; never; or an error where it cannot.
AUTO, OFF, REQUIRED = TRANSFER = ("auto", "off", "required")
# The least share that has to, of what a size's own merges leave open. With permuted names the
# highest was 0.29 of 10 merges, 0.26 of more; with the names as they are 3 of 24 were below it of
# 10, and none below 0.41 of more.
LEAST_SHARE = 0.3
# The rule in words.
RULE = (
    f"where by their likelihood {LEAST_SHARE:.0%} or more of what its own merges leave open carries"
    " over, never, or an error where it cannot."
)


def check_transfer(word: str) -> None:
    """Raise for a word that is none of these.

    Args:
        word: What was asked for.

    Raises:
        InputError: It is not.
    """
    if word not in TRANSFER:
        raise InputError(f"`transfer`: expected {', '.join(TRANSFER)}, found `{word}`")
