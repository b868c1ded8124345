"""The methods that a config may name: mergekit's, and those of the user's own."""

from importlib.metadata import entry_points

from mergeplan.config.methods import KNOWN, Method
from mergeplan.display.text import cut
from mergeplan.errors import InputError
from mergeplan.system.descriptors import stdout_to_stderr

# Of entry points of installed packages: a method's name, and the function that is it.
GROUP = "mergeplan.methods"


def find_method(name: str) -> Method | None:
    """The method of a name. A package that has an entry point of the name is imported, no other.

    Raises:
        InputError: The package's code cannot be imported, or declares no such method.
    """
    if name not in KNOWN:
        for point in entry_points(group=GROUP, name=name):
            what = f"method `{name}`: `{point.value}`"
            try:
                with stdout_to_stderr():
                    point.load()
            except InputError:
                raise
            except (Exception, SystemExit) as error:
                raise InputError(
                    f"{what} cannot be imported: {type(error).__name__}: {cut(error, 300)}"
                ) from error
            if name not in KNOWN:
                raise InputError(f"{what} declares no method of that name")
    return KNOWN.get(name)
