"""Whether a larger base size leans on smaller ones of the same experts."""

from mergeplan.errors import InputError

# Where merges that are left out are then predicted better; never; or an error where it cannot.
AUTO, OFF, REQUIRED = TRANSFER = ("auto", "off", "required")


def check_transfer(word: str) -> None:
    """Raise for a word that is none of these.

    Raises:
        InputError: It is not.
    """
    if word not in TRANSFER:
        raise InputError(f"`transfer`: expected {', '.join(TRANSFER)}, found `{word}`")
