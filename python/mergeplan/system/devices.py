"""Names of devices, as torch and every `--device` write them."""

from mergeplan.errors import InputError


def parse_device(name: str) -> tuple[str, int | None]:
    """A device's kind, `auto`, `cpu` or `cuda`, and the number of one GPU where it is named.

    Raises:
        InputError: Not of this form.

    >>> parse_device("cuda:1"), parse_device("auto")
    (('cuda', 1), ('auto', None))
    """
    kind, colon, number = name.partition(":")
    if kind in ("auto", "cpu", "cuda") and not colon:
        return kind, None
    if kind == "cuda" and number.isdecimal() and len(number) < 6:
        return kind, int(number)
    raise InputError(f"device `{name}`: expected `auto`, `cpu`, `cuda` or `cuda:0`")
