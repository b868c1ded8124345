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


def check_gpu(name: str, number: int | None, count: int, hint: str) -> None:
    """Refuse a GPU that is not there.

    Args:
        name: As it was given.
        number: Of the one GPU that is named, from 0; `None` for any.
        count: GPUs that torch finds.
        hint: What to do where it finds none.

    Raises:
        InputError: There is none, or not so many.
    """
    if count == 0:
        raise InputError(f"device `{name}`: torch finds no GPU", hint)
    if number is not None and number >= count:
        raise InputError(f"device `{name}`: torch finds {count} GPUs, counted from 0")
