"""Whole configs, each run by mergekit and by mergeplan: what mergekit documents, and drawn ones."""

import pytest

from tests.support.documented_configs import DOCUMENTED
from tests.support.drawn_configs import GENERATED
from tests.support.settings import FULL
from tests.support.whole import Whole, assert_same_merge, mergekit_in_config_order, use_hub_cache

# Every method once; models, slices and modules in turn.
SHARE = [GENERATED[method + 20 * (method % 3)] for method in range(20)]


@pytest.fixture(autouse=True)
def hub_and_order(zoo, monkeypatch):
    """The zoo's hub cache, and an order of models that mergekit otherwise draws by lot."""
    use_hub_cache(monkeypatch, zoo / "hub")
    mergekit_in_config_order(monkeypatch)


@pytest.mark.parametrize("case", DOCUMENTED, ids=str)
def test_what_mergekit_documents(case: Whole, zoo, tmp_path):
    assert_same_merge(case, zoo, tmp_path)


@pytest.mark.parametrize("case", GENERATED if FULL else SHARE, ids=str)
def test_drawn_configs(case: Whole, zoo, tmp_path):
    assert_same_merge(case, zoo, tmp_path)
