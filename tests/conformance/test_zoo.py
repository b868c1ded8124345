"""A share of the zoo of all model classes; `python -m tests.tools.zoo` tries the whole of it."""

import random

import mergekit  # noqa: F401  (else each plan of its own would start a process that imports it)
import pytest

from tests.support.settings import FULL, ROOT
from tests.tools.zoo.classes import all_species
from tests.tools.zoo.configs import kinds, shrunk
from tests.tools.zoo.judge import RIGHT
from tests.tools.zoo.table import right_rows
from tests.tools.zoo.trial import MERGES, try_species

SPECIES = {species.key: species for species in all_species()}
# Families whose merges went wrong once.
ALWAYS = (
    "deepseek_v2.DeepseekV2ForCausalLM",
    "deepseek_v3.DeepseekV3ForCausalLM",
    "dots1.Dots1ForCausalLM",
    "ernie4_5_moe.Ernie4_5_MoeForCausalLM",
    "gemma3.Gemma3ForConditionalGeneration",
    "jamba.JambaForCausalLM",
    "lfm2_moe.Lfm2MoeForCausalLM",
    "llava.LlavaForConditionalGeneration",
    "mixtral.MixtralForCausalLM",
    "qwen2_5_vl.Qwen2_5_VLForConditionalGeneration",
    "qwen2_moe.Qwen2MoeForCausalLM",
    "qwen3_moe.Qwen3MoeForCausalLM",
    "t5.T5ForConditionalGeneration",
)
DRAWN = 8


def share() -> list[str]:
    """Classes of which the zoo's page says that all is right: all, or those above and some."""
    right = right_rows((ROOT / "docs" / "evidence" / "zoo.md").read_text())
    if FULL:
        return right
    return [*ALWAYS, *random.Random(20).sample(sorted(set(right) - set(ALWAYS)), DRAWN)]


@pytest.mark.parametrize("key", share())
def test_a_merge_has_every_tensor_and_loads(key):
    """Whatever the class: by linear and TIES, with and without the tokenizer's source."""
    merges = tuple(MERGES) if FULL else ("ties", "linear, tokenizer")
    row = try_species(SPECIES[key], merges, both_heads=FULL)
    if "timm" in row.left_out:
        pytest.skip("needs timm and torchvision, which no other test does")
    assert not row.left_out
    assert set(row.ours.values()) == {RIGHT}, row.ours
    assert len(row.ours) == len(merges) * len(row.heads)


def test_a_small_config_keeps_kinds_of_layers_and_what_is_no_size():
    small = shrunk(
        {
            "hidden_size": 4096,
            "num_hidden_layers": 3,
            "layer_types": ["local", "local", "full"],
            "rope_theta": 10000,
            "image_token_id": 151655,
            "vision_config": {"patch_size": 14, "model_type": "some"},
        }
    )
    assert small["layer_types"] == ["local", "full"] == kinds(["local", "local", "full"])
    assert small["rope_theta"] == 10000
    assert small["image_token_id"] < 96
    assert small["vision_config"] == {"patch_size": 4, "model_type": "some"}
