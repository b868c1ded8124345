"""docs/api.md lists every public name once, and each has something to say."""

import inspect
import re

import pytest

import mergeplan
from tests.support.settings import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
LISTED = re.findall(r"^\.\. (?:auto)?(?:class|exception|function):: (\w+)", PAGE, re.M)
# In words of the page's own; of the core, whose docstrings stand in its stub.
IN_WORDS = {"__version__", "DEMO_POOL", "build_info"}


def test_the_page_lists_every_public_name_once():
    in_text = re.findall(r"`mergeplan\.(__version__|DEMO_POOL)`", PAGE)
    assert sorted([*LISTED, *in_text]) == sorted(mergeplan.__all__)


@pytest.mark.parametrize("name", sorted(set(mergeplan.__all__) - IN_WORDS))
def test_every_public_name_has_a_docstring_that_reads_as_written(name):
    public = getattr(mergeplan, name)
    text = vars(public).get("__doc__") if inspect.isclass(public) else public.__doc__
    assert text
    assert not text.startswith(f"{name}("), "the one that a dataclass makes"
    for attribute, value in inspect.getmembers(public, inspect.isdatadescriptor):
        if isinstance(value, property) and not attribute.startswith("_"):
            # Napoleon takes what stands before a colon for the type.
            assert ": " not in (value.__doc__ or "").partition("\n")[0], attribute
