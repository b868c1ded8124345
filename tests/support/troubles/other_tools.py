"""Messages of mergekit and of safetensors, on inputs that are answered otherwise here."""

import pytest

from tests.support.commands import Done
from tests.support.merges import run_mergekit
from tests.support.troubles import configs, mismatches, models
from tests.support.troubles.bench import CONFIG, Bench, produces

TWICE = """\
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: a, layer_range: [0, 2]}]
"""


def by_mergekit(bench: Bench, text: str = CONFIG) -> Done:
    """What mergekit says of a config."""
    pytest.importorskip("mergekit")
    bench.patch.chdir(bench.folder)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run_mergekit(text, bench.folder / "theirs")
    return Done([], 1, "", str(caught.value))


@produces("Tensor size mismatch for …")
def other_sizes(bench: Bench) -> Done:
    assert "the vocabularies differ" in mismatches.longer_vocabulary(bench).stderr
    return by_mergekit(bench)


@produces("Tensor … required but not present in model …")
def absent(bench: Bench) -> Done:
    assert "--allow-left-out" in mismatches.fewer_tensors(bench).stderr
    return by_mergekit(bench)


@produces("Error while deserializing header: …")
def no_header(bench: Bench) -> Done:
    assert "git-lfs" in models.pointer(bench).stderr
    return by_mergekit(bench)


@produces("Unable to find model files at …")
def no_files(bench: Bench) -> Done:
    models.gguf(bench)
    return by_mergekit(bench)


@produces("Missing required parameter … for …")
def no_parameter(bench: Bench) -> Done:
    assert configs.no_weight(bench).returncode == 1
    return by_mergekit(bench, (bench.folder / "c.yml").read_text())


@produces("… `num_hidden_layers` (N) must be equal to the number of `layer_types` (N)")
def stacked(bench: Bench) -> Done:
    assert bench.merge(text=TWICE).returncode == 0
    return by_mergekit(bench, TWICE)
