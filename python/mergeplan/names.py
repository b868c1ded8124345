"""How messages and tables call things."""

from mergeplan.series import Series


def name_of(series: Series) -> str:
    """A series: method, options that differ from the defaults, and base size."""
    label = series.method or "all rows"
    options = "" if series.options == "{}" else f" {series.options}"
    size = "" if series.n_params is None else f" at {format_count(series.n_params)}"
    return f"{label}{options}{size}"


def format_count(n_params: float) -> str:
    """Parameters for people.

    >>> format_count(80592.0)
    '80.6k'
    """
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n_params >= factor:
            return f"{n_params / factor:.3g}{unit}"
    return f"{n_params:.0f}"
