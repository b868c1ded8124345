"""Pools, their texts, and runs of `calibrate` that cannot go on."""

import json
import shutil

from mergeplan.system.files import lock
from tests.support.commands import Done
from tests.support.pools import write_pool
from tests.support.settings import DEMO_POOL
from tests.support.troubles.bench import Bench, produces


def calibrate(bench: Bench, *more: object, **changes: object) -> Done:
    """Begin or go on with a run of the pool, where it should be refused before it measures."""
    write_pool(bench.folder, **changes)
    return bench.run("calibrate", "pool.yml", "-o", "run", "--budget", "1 merges", *more)


def with_text(bench: Bench, line: object) -> Done:
    """A text of the pool that has one line alone."""
    (bench.folder / "odd.jsonl").write_text(f"{json.dumps(line)}\n")
    return calibrate(bench, data={"html": "odd.jsonl"})


@produces("the pool has no `data`: there is nothing to measure losses on")
def no_data(bench: Bench) -> Done:
    return calibrate(bench, data={})


@produces("`KEY`: there is no file `FILE`")
def no_text(bench: Bench) -> Done:
    return calibrate(bench, data={"html": "texts/html.json"})


@produces("`FILE`, line N: expected `text`, `prompt` and `response`, or `messages`, found …")
def other_key(bench: Bench) -> Done:
    return with_text(bench, {"content": "a few words"})


@produces("`FILE`, line N: `messages` need a chat template, and the tokenizer has none")
def no_template(bench: Bench) -> Done:
    asked, said = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}
    return with_text(bench, {"messages": [asked, said]})


@produces("`sizes[N].experts`: expected a mapping, found …")
def listed_experts(bench: Bench) -> Done:
    return calibrate(bench, sizes=[{"base": "base", "experts": ["a", "b"]}])


@produces("`sizes[N].experts`: expected two experts or more, found one")
def one_expert(bench: Bench) -> Done:
    return calibrate(bench, sizes=[{"base": "base", "experts": {"a": "a"}}])


@produces("the sizes are not of one pool: `KEY` has `NAME`, and `KEY` has not")
def other_names(bench: Bench) -> Done:
    for name in ("base", "a", "b"):
        shutil.copytree(bench.folder / name, bench.folder / f"small-{name}")
    sizes = [
        {"base": "base", "experts": {"a": "a", "b": "b"}},
        {"base": "small-base", "n_params": "10k", "experts": {"a": "small-a", "B": "small-b"}},
    ]
    return calibrate(bench, "--for", "select", "--transfer", "required", sizes=sizes)


@produces("a smaller size was asked for, and the pool has one size only")
def one_size(bench: Bench) -> Done:
    return calibrate(bench, "--for", "select", "--transfer", "required")


@produces("`OPTION` was … in the run in `FOLDER`, and is … now: what was measured there …")
def other_option(bench: Bench) -> Done:
    assert calibrate(bench, "--max-tokens", 200).returncode == 0
    return calibrate(bench, "--max-tokens", 300)


@produces("the pool's text has changed since the run in `FOLDER`: what was measured there …")
def other_text(bench: Bench) -> Done:
    assert calibrate(bench).returncode == 0
    return calibrate(bench, data={"html": "texts/html.jsonl"})


@produces("expert `NAME` is no longer in the run in `FOLDER`: what was measured there …")
def other_pool(bench: Bench) -> Done:
    assert calibrate(bench).returncode == 0
    experts = {name: str(DEMO_POOL / name) for name in ("html", "js", "md")}
    return calibrate(bench, sizes=[{"base": str(DEMO_POOL / "base"), "experts": experts}])


@produces("another calibration is working in `FOLDER`")
def twice(bench: Bench) -> Done:
    (bench.folder / "run").mkdir()
    with lock(bench.folder / "run", "calibration"):
        return calibrate(bench)


@produces("`FOLDER` is no run of `mergeplan calibrate`")
def no_run(bench: Bench) -> Done:
    return bench.run("status", "base")


@produces("no document has a `group`: halves and standard errors go by document; …")
def no_groups(bench: Bench) -> Done:
    return calibrate(bench)


@produces("no merge was measured: there is nothing to fit")
def bases_alone(bench: Bench) -> Done:
    return calibrate(bench, "--for", "select")
