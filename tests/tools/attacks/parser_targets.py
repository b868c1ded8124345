"""Every parser of ours that a file reaches: what it reads, and how."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest import mock

from mergeplan.errors import InputError
from tests.support.settings import DEMO_POOL
from tests.tools.attacks import parser_mutations as mutations

Mutate = Callable[[bytes, Random], bytes]


@dataclass(frozen=True)
class Target:
    """A file, and who reads it.

    Attributes:
        file: Its place in the ground.
        seeds: What it holds where nothing is wrong.
        read: Called with the ground once the file is written.
        cost: How many times the others' milliseconds it takes: it is drawn as much less often.
    """

    name: str
    file: str
    seeds: tuple[bytes, ...]
    mutate: Mutate
    read: Callable[[Path], object]
    cost: int = 1


_CONFIG = b"""merge_method: ties
base_model: base
models:
  - model: a
    parameters: {weight: [0.1, 0.9], density: [{filter: mlp, value: 0.5}, {value: 1}]}
parameters: {normalize: true, lambda: 0.4}
dtype: bfloat16
tokenizer: {source: base, pad_to_multiple_of: 8}
chat_template: auto
random_seed: 3
"""
_SLICES = b"""slices:
  - sources:
      - {model: base, layer_range: [0, 2], parameters: {weight: 0.3}}
      - {model: a, layer_range: [0, 2], parameters: {weight: &w 0.7}}
merge_method: linear
parameters: {weight: *w}
"""
_PLAIN = b"merge_method: linear\nmodels: [{model: base}, {model: a}]\nparameters: {weight: 1}\n"
_POOL = b"""sizes:
  - {base: base, experts: {a: a}, n_params: 0.5B}
data: {code: code.jsonl}
methods: {average: , ties: {density: 0.5}}
random_seed: 1
"""
_COSTS = b"train: 1\nmerge: 0.5\ntrain_fixed: 2\nserve: 0.1\n"
_TABLE = b"""n_params,method,options,k,subset,weights,pool_size,domain,loss_nats,loss_se,seed
80592,average,{},0,,,9,macro,1.906816,0.01,
80592,ties,"{""density"": 0.5}",2,code+math,0.5+0.5,9,macro,1.8,0.01,1
"""
_DOCUMENTS = (
    b'{"text": "a"}\n{"text": "b", "id": 3, "group": "c"}\n',
    b'{"prompt": "a", "response": "b"}\n',
    b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
)
_ADAPTER = {
    "peft_type": "LORA",
    "base_model_name_or_path": "base",
    "r": 2,
    "lora_alpha": 4,
    "rank_pattern": {"k_proj": 2},
    "alpha_pattern": {"v_proj|up_proj": 3, ".*q_proj": 8},
    "use_rslora": False,
    "modules_to_save": None,
    "fan_in_fan_out": False,
}
_MODULES = [{"idx": 0, "name": "0", "path": "", "type": "models.Own"}, {"type": "other.Kind"}]
_CODE = b"from .other import x\nfrom . import y\nfrom .a.b import c\n"


def ground(folder: Path) -> Path:
    """A pool of a base, an expert and an adapter, which the targets' files are written into."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (("base", "base"), ("a", "js"), ("sharded", "base")):
        shutil.copytree(DEMO_POOL / source, folder / name, dirs_exist_ok=True)
    (folder / "sharded" / "model.safetensors").rename(folder / "sharded" / "part.safetensors")
    (folder / "lora").mkdir(exist_ok=True)
    (folder / "run").mkdir(exist_ok=True)
    (folder / "lists").mkdir(exist_ok=True)
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(_ADAPTER))
    (folder / "lora" / "adapter_model.safetensors").write_bytes(_lora(folder / "base"))
    (folder / "s").mkdir(exist_ok=True)
    (folder / "code.jsonl").write_bytes(_DOCUMENTS[0])
    (folder / "plain.yml").write_bytes(_PLAIN)
    (folder / "given.yml").write_bytes(_POOL)
    (folder / "lists" / "vocab.json").write_bytes(b'{"a": 0}')
    return folder


def targets(at: Path) -> list[Target]:
    """All of them.

    Args:
        at: See `ground`.
    """
    # What is not read at the moment of a call would be imported within its limit of time.
    from mergeplan.calibration.identity import RunIdentity
    from mergeplan.calibration.status import RunRecord
    from mergeplan.checkpoints.code import code_of
    from mergeplan.checkpoints.vocabulary import read_ids, token_files
    from mergeplan.config.seed import random_seed_in
    from mergeplan.evaluation.documents import read_documents
    from mergeplan.evaluation.measured import read_scores
    from mergeplan.evaluation.recording import columns_of
    from mergeplan.evaluation.resampling import Resampling
    from mergeplan.law.costs import load_costs
    from mergeplan.law.file import law_data, load_law
    from mergeplan.law.fit import fit
    from mergeplan.law.recommend import recommend
    from mergeplan.measurements.file import load_measurements, read_rows
    from mergeplan.merging.manifest import load_manifest
    from mergeplan.pool.geometry.file import load_grams
    from mergeplan.pool.pool import load_pool
    from mergeplan.pool.sampling import load_sample
    from mergeplan.pool.subsets import read_subsets
    from mergeplan.system.reading import RUN, STATUS
    from mergeplan.system.strict import load_strictly
    from mergeplan.system.yamlfile import read_yaml
    from mergeplan.tuning.folder import read_points

    json_, bytes_, table = mutations.of_json, mutations.of_bytes, mutations.of_table
    tensors, yaml_ = mutations.of_safetensors, mutations.of_yaml
    plan = _plan

    def scores(folder: Path) -> None:
        measured = read_scores(folder / "run")
        for one in measured:
            one.scores.macro(), one.scores.estimates(), one.scores.faults()
        Resampling.of(measured).deviations([one.merge.merge_key for one in measured], {"macro": 1})

    def lists(folder: Path) -> None:
        found = token_files(folder / "lists")
        for name, _ in found.lists if found else ():
            read_ids(found, name)

    def law(folder: Path) -> None:
        found = load_law(folder / "law.json")
        law_data(found), found.summary()
        recommend(found, 1.9)

    def config(folder: Path) -> None:
        _config(folder)
        _plan(folder)

    base = {path.name: path.read_bytes() for path in (at / "base").iterdir()}
    index = {"metadata": {"total_size": 1}, "weight_map": _weight_map(at)}
    fitted = json.dumps(law_data(fit(DEMO_POOL / "measurements.csv", method="average"))).encode()
    merge = {"size": 0, "n_params": 80592.0, "method": "ties", "options": "{}", "subset": ["a"]}
    line = {
        "merge": merge,
        "seconds": [0.1, 0.2],
        "scores": {
            "code": {"lines": [1, 2], "n_tokens": [3, 4], "nll": [1.5, None], "groups": ["a", None]}
        },
    }
    point = {
        "weights": [[0.5, 0.1], [0.2, 0.3]],
        "accepting": line["scores"],
        "losses": {"code": 1.5},
        "slopes": {"code": [[0.5, 0.1], [0.2, 0.3]]},
        "seconds": 0.5,
        "tokens": 7,
    }
    said = {"answer": "base", "headline": "h", "text": "t", "exit_code": 4}
    status = {"command": "c", "folder": "/", "verdict": said}
    run = {"models": {"base": [["f", 1, 2, "h"]]}, "texts": {"0": "x"}, "arithmetic": {"b": 1}}
    return [
        Target("config", "c.yml", (_CONFIG, _SLICES, _PLAIN), yaml_, config, cost=4),
        Target(
            "pool", "pool.yml", (_POOL,), mutations.of_yaml, lambda f: load_pool(f / "pool.yml")
        ),
        Target(
            "costs", "cost.yml", (_COSTS,), mutations.of_yaml, lambda f: load_costs(f / "cost.yml")
        ),
        Target("measurements", "m.csv", (_TABLE,), table, lambda f: load_measurements(f / "m.csv")),
        Target(
            *("seed of another program", "c.yml", (_CONFIG, _SLICES), yaml_),
            lambda f: random_seed_in(f / "c.yml"),
        ),
        Target("rows", "m.csv", (_TABLE,), table, lambda f: read_rows(f / "m.csv")),
        Target(
            "appended", "m.csv", (_TABLE,), table, lambda f: columns_of(f / "m.csv", {"k": "1"})
        ),
        Target("subsets", "s.csv", (_subsets(),), table, lambda f: read_subsets(f / "s.csv")),
        Target("law", "law.json", (fitted,), json_, law, cost=100),
        Target(
            "law as it is read", "law.json", (fitted,), json_, lambda f: load_law(f / "law.json")
        ),
        Target("geometry", "g.json", (_geometry(),), json_, lambda f: load_grams(f / "g.json")),
        Target(
            *("run", "run/run.json", (json.dumps(run).encode(),), json_),
            lambda f: load_strictly(f / "run" / "run.json", RunIdentity, RUN),
        ),
        Target(
            *("status", "run/status.json", (json.dumps(status).encode(),), json_),
            lambda f: load_strictly(f / "run" / "status.json", RunRecord, STATUS),
        ),
        Target(
            *("scores", "run/scores.jsonl", ((json.dumps(line) + "\n").encode() * 2,)),
            *(mutations.of_lines, scores),
        ),
        Target(
            *("points", "run/points.jsonl", ((json.dumps(point) + "\n").encode() * 2,)),
            *(mutations.of_lines, lambda f: read_points(f / "run" / "points.jsonl")),
        ),
        Target(
            "texts",
            "t.jsonl",
            _DOCUMENTS,
            mutations.of_lines,
            lambda f: read_documents(f / "t.jsonl"),
        ),
        Target(
            *("manifest", "run/mergeplan_manifest.json", (_manifest(),), json_),
            lambda f: load_manifest(f / "run"),
        ),
        Target("config.json", "a/config.json", (base["config.json"],), json_, plan, cost=60),
        Target(
            "donor's config.json", "base/config.json", (base["config.json"],), json_, plan, cost=5
        ),
        Target(
            *("generation_config.json", "a/generation_config.json"),
            *((base["generation_config.json"],), json_, plan, 60),
        ),
        Target(
            *("tokenizer_config.json", "base/tokenizer_config.json"),
            *((base["tokenizer_config.json"],), json_, plan, 60),
        ),
        Target(
            "tokenizer.json", "a/tokenizer.json", (base["tokenizer.json"],), bytes_, plan, cost=5
        ),
        Target(
            "header", "a/model.safetensors", (base["model.safetensors"],), tensors, plan, cost=5
        ),
        Target(
            *("index", "sharded/model.safetensors.index.json", (json.dumps(index).encode(),)),
            *(json_, lambda f: _opened(f / "sharded"), 3),
        ),
        Target(
            *(
                "pickled index",
                "sharded/pytorch_model.bin.index.json",
                (json.dumps(index).encode(),),
            ),
            *(json_, lambda f: _opened(f / "sharded" / "pytorch_model.bin.index.json")),
        ),
        Target(
            *("adapter_config.json", "lora/adapter_config.json", (json.dumps(_ADAPTER).encode(),)),
            *(json_, lambda f: _opened(f / "lora", f / "base"), 5),
        ),
        Target(
            *("adapter", "lora/adapter_model.safetensors", (_lora(at / "base"),), tensors),
            *(lambda f: _opened(f / "lora", f / "base"), 5),
        ),
        *(
            Target(f"vocabulary {name}", f"lists/{name}", seeds, mutate, lists)
            for name, seeds, mutate in _vocabularies(base["tokenizer.json"])
        ),
        Target(
            *("modules.json", "base/modules.json", (json.dumps(_MODULES).encode(),), json_),
            lambda f: code_of(f / "base", ["modules.json", "config.json"]),
        ),
        Target(
            "code", "base/models.py", (_CODE,), bytes_, lambda f: code_of(f / "base", ["map.json"])
        ),
        Target(
            "task",
            "task.yml",
            (b"task: x\n",),
            yaml_,
            lambda f: read_yaml(f / "task.yml", RUN),
        ),
        Target(
            "sample",
            "s/subsets.csv",
            (_subsets(),),
            table,
            lambda f: load_sample(f / "s/subsets.csv", _pool(f)),
            cost=10,
        ),
    ]


def _config(folder: Path) -> object:
    from mergeplan.config.config import read_config

    found, faults = read_config(folder / "c.yml")
    if found is None or faults:
        raise faults[0]
    return found


def _plan(folder: Path) -> None:
    """Everything that planning reads of two models, the donor's companions among them."""
    from mergeplan.checkpoints.donated import donated_by
    from mergeplan.config.config import load_config
    from mergeplan.planning.planner import build_plan

    path = folder / "c.yml"
    config = load_config(path if path.exists() else folder / "plain.yml")
    with mock.patch("mergeplan.planning.mergekit.process.ask_apart", _another_process):
        plan = build_plan(config, seed=0, max_shard_bytes=10**9)
    plan.data.sha256()
    donated_by(plan.donor)


def _another_process(*_: object) -> None:
    raise InputError("mergekit plans this in a process of its own")


def _opened(model: Path, base: Path | None = None) -> None:
    from mergeplan.checkpoints.opening import open_expert, open_stored

    if base is None:
        open_stored(str(model))
    else:
        open_expert(model, base)


def _pool(folder: Path) -> object:
    from mergeplan.pool.pool import load_pool

    return load_pool(folder / "given.yml")


def _header(file: Path) -> dict[str, dict[str, object]]:
    raw = file.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _weight_map(at: Path) -> dict[str, str]:
    return dict.fromkeys(_header(at / "sharded" / "part.safetensors"), "part.safetensors")


def _lora(base: Path) -> bytes:
    """Factors of rank 2 for every projection of the first layer."""
    header: dict[str, object] = {}
    place = 0
    for name, entry in _header(base / "model.safetensors").items():
        if "layers.0." not in name or not name.endswith("_proj.weight"):
            continue
        rows, columns = entry["shape"]  # type: ignore[misc]
        for factor, shape in (("A", [2, columns]), ("B", [rows, 2])):
            key = f"base_model.model.{name.removesuffix('weight')}lora_{factor}.weight"
            end = place + 4 * shape[0] * shape[1]
            header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [place, end]}
            place = end
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(place)


def _subsets() -> bytes:
    from mergeplan.pool.subsets import COLUMNS, SubsetMerge

    rows = [",".join(COLUMNS)]
    for merge in (
        SubsetMerge(0, 80592.0, "base"),
        SubsetMerge(0, 80592.0, "average", "{}", ("a",)),
        SubsetMerge(0, 80592.0, "ties", '{"density": 0.5}', ("a", "b"), 3),
    ):
        options = merge.options.replace('"', '""')
        cells = (f"configs/{merge.key}.yml", merge.key, 0, 80592, merge.method, f'"{options}"')
        more = (merge.k, "+".join(merge.subset), 9, merge.seed, "0" * 16)
        rows.append(",".join(map(str, (*cells, *more))))
    return ("\n".join(rows) + "\n").encode()


def _geometry() -> bytes:
    group = {
        "n_elements": 4,
        "norms": [1.0, 1.0],
        "gram": [[1.0, 0.1], [0.1, 1.0]],
        "cosines": [[1.0, 0.1], [0.1, None]],
        "agreement": [[1.0, 0.1], [0.1, 1.0]],
        "kept": [[1.0], [1.0]],
    }
    size = {
        "base": "base",
        "n_params": 80592.0,
        "experts": ["a", "b"],
        "densities": [0.5],
        "read_bytes": 3,
        "whole": group,
        "by_kind": {"mlp": group},
        "by_layer": {"0": group},
        "left_out": {"x": "why"},
    }
    head = {"format": "mergeplan geometry", "version": 2, "pool_hash": "0" * 16}
    return json.dumps({**head, "sizes": [size]}).encode()


def _manifest() -> bytes:
    file = {"path": "/models/a", "bytes": 3, "mtime_ns": 4}
    return json.dumps(
        {
            "mergeplan_version": "0.1.0",
            "manifest_version": 1,
            "seed": 0,
            "config": "merge_method: ties",
            "plan_sha256": "0" * 64,
            "inputs": [{"model": "a", "files": [file]}],
            "files": {"model.safetensors": 100},
            "headers": {"model.safetensors": "0" * 64},
            "companions": {"config.json": "1" * 64, "code/x.py": "2" * 64},
            "tensors": {"x": "0" * 16},
            "left_out": {"y": "why"},
        }
    ).encode()


def _vocabularies(tokenizer: bytes) -> list[tuple[str, tuple[bytes, ...], Mutate]]:
    """Every kind of list of tokens."""
    pieces = b"".join(
        bytes([0x0A, len(piece) + 2, 0x0A, len(piece)]) + piece for piece in (b"<unk>", b"ab", b"c")
    )
    unigram = json.dumps(
        {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}}
    ).encode()
    tekken = {
        "config": {"default_num_special_tokens": 2},
        "vocab": [{"rank": 0, "token_bytes": "AA==", "token_str": "a"}],
    }
    return [
        ("tokenizer.json", (tokenizer, unigram), mutations.of_json),
        ("vocab.json", (b'{"a": 0, "b": 1}',), mutations.of_json),
        ("vocab.txt", (b"a\nb\nc\n",), mutations.of_bytes),
        ("spiece.model", (pieces,), mutations.of_bytes),
        ("tiktoken.model", (b"AA== 0\nAQ== 1\n",), mutations.of_bytes),
        ("tekken.json", (json.dumps(tekken).encode(),), mutations.of_json),
        ("added_tokens.json", (b'{"<x>": 5}',), mutations.of_json),
    ]
