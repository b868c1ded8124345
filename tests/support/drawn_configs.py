"""Configs drawn by a seed: methods, scopes of parameters, slices, modules, tokenizers, dtypes.

They keep clear of what docs/agreement.md lists as different on purpose, of what mergekit refuses,
and of thresholds at which 16-bit magnitudes tie, of which mergekit keeps any.
"""

import random
from typing import Any

import yaml

from mergeplan.config.methods import METHODS, Method, Option
from tests.support.whole import Whole
from tests.support.zoo import LAYERS, POOLS, model_name

COUNT = 420
RANDOM = ("dare_ties", "dare_linear", "della", "della_linear")
TRIMMING = ("ties", "breadcrumbs", "breadcrumbs_ties")
# Their small constants are zero in float16, or their sums reach past it: mergekit gives NaN.
NOT_FLOAT16 = ("multislerp", "nearswap", "karcher", "arcee_fusion", "ramplus_tl")
# mergekit leaves a per-layer list of their configs as long as it was, and stops.
FIXED_DEPTH = ("qwen2", "gemma2", "hub")
FILTERS = ("mlp", "self_attn", "norm", "embed", "0.", "weight", "*", "attention", "block")
VALUES: dict[str, list[Any]] = {
    "weight": [0.2, 0.3, 0.5, 1.0, 1.7, 1],
    "density": [0.35, 0.5, 0.6],
    "gamma": [0.01, 0.1],
    "epsilon": [0.05, 0.1, 0.2],
    "normalize": [True, False],
    "rescale": [True, False],
    "lambda": [0.5, 1.0, 1.3],
    "int8_mask": [True, False],
    "t": [0.0, 0.3, 0.5, 0.77, 1.0],
    "nuslerp_row_wise": [True, False],
    "nuslerp_flatten": [True, False],
    "normalize_weights": [True, False],
    "eps": [1e-8],
    "filter_wise": [True, False],
    "select_topk": [0.1, 0.5, 1.0],
    "max_iter": [1, 10],
    "tol": [1e-5],
    "r": [0.1, 0.5],
    "alpha": [0.2, 1.0],
    "scale": [0.3, 1.0, -2.0],
}


class _Draw:
    """One config; the fields are chosen first, since what may stand where depends on them."""

    def __init__(self, number: int) -> None:
        self.choose = random.Random(f"mergeplan-{number}")
        names = list(METHODS)
        self.method: Method = METHODS[names[number % len(names)]]
        self.layout = ("models", "slices", "modules")[number // len(names) % 3]
        pools = [name for name in POOLS if self._suits(name)]
        self.pool = self.choose.choice(pools)
        self.dtype = self._dtype()
        self.exact_dtype = POOLS[self.pool].dtype == "float32" and self.dtype in (None, "float32")

    def _suits(self, name: str) -> bool:
        if self.layout == "slices":
            return POOLS[name].decoder_only
        if self.layout == "models":
            # mergekit's architecture file for Whisper misnames the decoder's tensors.
            return name != "whisper"
        return True

    def _dtype(self) -> str | None:
        known = [None, None, "float32", "bfloat16", "float16"]
        if self.method.name in NOT_FLOAT16:
            if POOLS[self.pool].dtype == "float16":
                return "float32"
            known.remove("float16")
        return self.choose.choice(known)

    def config(self) -> dict[str, Any]:
        """The YAML's data."""
        others, base = self._models()
        data: dict[str, Any] = {"merge_method": self.method.name}
        if self.layout == "models":
            data["models"] = self._entries(others, base)
        elif self.layout == "slices":
            data["slices"] = self._slices(others, base)
        else:
            data["modules"] = {
                module: self._module(others, base) for module in POOLS[self.pool].modules
            }
        if base is not None:
            data["base_model"] = base
        if self.dtype:
            data["dtype"] = self.dtype
        if self.choose.random() < 0.3:
            data["out_dtype"] = self.choose.choice(["float32", "bfloat16", "float16"])
        if data.get("out_dtype") is None and self.method.name in ("arcee_fusion", "ramplus_tl"):
            data["out_dtype"] = "float32"  # else mergekit's kernel decides, see docs/agreement.md
        data["parameters"] = self._parameters(everything=True)
        data |= self._tokenizer(others[0], base)
        return data

    def _models(self) -> tuple[list[str], str | None]:
        """The models, and the base."""
        names = [model_name(self.pool, model) for model in ("a", "b", "c")]
        if self.pool == "mistral" and self.method.name in NOT_FLOAT16 and self.dtype is None:
            names = names[1:2]
        least = max(1, self.method.min_inputs)
        most = min(3, self.method.max_inputs or 3)
        # Several inputs where the method would take one, for there is nothing to merge in one.
        least = min(most, max(least, 2))
        others = self.choose.sample(names, self.choose.randint(least, most))
        base = model_name(self.pool, "base")
        if self.method.base == "required":
            return others, base
        if self.method.base == "optional" and self.choose.random() < 0.5:
            return others, base
        if self.method.max_inputs is None and self.choose.random() < 0.5:
            return others, base
        return others, None

    def _listed(self, others: list[str], base: str | None) -> list[str]:
        """The models of a slice, the base among them, somewhere."""
        if base is None or (self.method.base == "none" and self.method.max_inputs == 1):
            return others
        listed = list(others)
        listed.insert(self.choose.randrange(len(listed) + 1), base)
        return listed

    def _entries(self, others: list[str], base: str | None) -> list[dict[str, Any]]:
        listed = others
        if self.choose.random() < 0.4:
            listed = self._listed(others, base)
        return [self._entry(name, base) for name in listed]

    def _entry(self, name: str, base: str | None) -> dict[str, Any]:
        entry: dict[str, Any] = {"model": name}
        is_compared_with = name == base and self.method.base != "none"
        if not is_compared_with and (own := self._parameters(per_input=True)):
            entry["parameters"] = own
        return entry

    def _slices(self, others: list[str], base: str | None) -> list[dict[str, Any]]:
        spans = self.choose.choice([[(0, 4)], [(0, 2), (2, 4)], [(0, 3), (3, 4)]])
        if self.pool not in FIXED_DEPTH:
            spans = self.choose.choice(
                [spans, [(0, 3), (1, 4)], [(2, 4)], [(0, 1), (0, 1), (3, 4)]]
            )
        return [self._slice(others, base, span) for span in spans]

    def _slice(self, others: list[str], base: str | None, span: tuple[int, int]) -> dict[str, Any]:
        sources = []
        for name in self._listed(others, base):
            start, end = span
            if self.choose.random() < 0.2 and end < LAYERS:
                start, end = start + 1, end + 1
            sources.append({**self._entry(name, base), "layer_range": [start, end]})
        made: dict[str, Any] = {"sources": sources}
        if own := self._parameters():
            made["parameters"] = own
        return made

    def _module(self, others: list[str], base: str | None) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if POOLS[self.pool].decoder_only and self.choose.random() < 0.5:
            made["slices"] = self._slices(others, base)
        else:
            made["models"] = self._entries(others, base)
        if own := self._parameters():
            made["parameters"] = own
        return made

    def _parameters(self, everything: bool = False, per_input: bool = False) -> dict[str, Any]:
        """Settings of one scope; `everything` gives each option that must have a value."""
        made = {}
        for key, option in self.method.options.items():
            if key not in VALUES or (per_input and not option.per_input):
                continue
            if (everything and option.required) or self.choose.random() < 0.35:
                made[key] = self._setting(key, option, whole=everything and option.required)
        return made

    def _setting(self, key: str, option: Option, whole: bool) -> Any:
        """A scalar, a gradient, or conditions; `whole` ends them with a value for all."""
        kind = self.choose.choice(["scalar", "scalar", "gradient", "conditions"])
        if kind != "conditions":
            return self._value(key, option, gradient=kind == "gradient")
        conditions = []
        for word in self.choose.sample(FILTERS, self.choose.randint(1, 3)):
            value = self._value(key, option, gradient=self.choose.random() < 0.3)
            conditions.append({"filter": word, "value": value})
        if whole or self.choose.random() < 0.5:
            conditions.append({"value": self._value(key, option)})
        return conditions

    def _value(self, key: str, option: Option, gradient: bool = False) -> Any:
        values = VALUES[key]
        if key == "density" and not self.exact_dtype and self.method.name in TRIMMING:
            values = [1.0]
        if key == "select_topk" and not self.exact_dtype:
            values = [1.0]
        if key == "gamma" and not self.exact_dtype:
            values = [0.0]
        if key == "t" and self.method.name == "nearswap":
            values = [0.0005, 0.002, 0.01]
        if gradient and option.kind is not int:
            return [self.choose.choice(values) for _ in range(self.choose.randint(2, 4))]
        return self.choose.choice(values)

    def _tokenizer(self, model: str, base: str | None) -> dict[str, Any]:
        """Settings of the vocabulary; `model` is one of the inputs."""
        if self.pool == "words":
            return self._own_words(model, base)
        if not POOLS[self.pool].decoder_only or self.choose.random() < 0.85:
            return {}
        made: dict[str, Any] = {"chat_template": self.choose.choice(["chatml", "alpaca", "auto"])}
        if base is not None and self.choose.random() < 0.5:
            made["tokenizer_source"] = self.choose.choice(["base", "union"])
        return made

    def _own_words(self, model: str, base: str | None) -> dict[str, Any]:
        source = self.choose.choice(["union", "union", model, *(["base"] if base else [])])
        if self.choose.random() < 0.5:
            return {"tokenizer_source": source}
        made: dict[str, Any] = {"source": source}
        if self.choose.random() < 0.5:
            made["pad_to_multiple_of"] = self.choose.choice([8, 64])
        if self.choose.random() < 0.6:
            token = {"kind": "model_token", "model": model, "token": "</s>"}
            made["tokens"] = {
                "<|own|>": {"source": self.choose.choice([{"kind": "zero"}, token])},
                "x": {"source": model, "force": True},
            }
        return {"tokenizer": made}


def make(number: int) -> Whole:
    """The config of a number; the same in every process."""
    draw = _Draw(number)
    data = draw.config()
    random_mask = draw.method.name in RANDOM
    shard_bytes = 50_000 if number % 4 == 0 else 5_000_000_000
    name = f"{number:03}-{draw.method.name}-{draw.layout}-{draw.pool}-{draw.dtype}"
    return Whole(name, yaml.safe_dump(data, sort_keys=False), random_mask, shard_bytes)


GENERATED = [make(number) for number in range(COUNT)]
