"""Whoever has a mergekit-yaml command line can put `mergeplan merge` in its place."""

import click
import pytest

from mergeplan.cli.merge import command
from mergeplan.cli.options.mergekit_flags import UNNEEDED
from tests.support.commands import cli

# A value for each flag of mergekit that takes one.
VALUES = {
    "--transformers-cache": "cache",
    "--lora-merge-cache": "cache",
    "--lora-merge-dtype": "bfloat16",
    "--device": "cpu",
    "--out-shard-size": "5B",
    "--random-seed": "3",
    "--num-threads": "2",
    "-j": "2",
    "--write-threads": "2",
}
REFUSED = {"--no-safe-serialization"}


def parse(*arguments: str) -> dict[str, object]:
    """The parameters of `mergeplan merge`, without running it."""
    with command.make_context("merge", ["c.yml", "out", *arguments]) as context:
        return context.params


def flags_of_mergekit() -> list[str]:
    from mergekit.scripts.run_yaml import main

    options = [param for param in main.params if isinstance(param, click.Option)]
    return [flag for option in options for flag in (*option.opts, *option.secondary_opts)]


def test_every_flag_of_mergekit_is_taken_or_refused_with_the_reason():
    flags = flags_of_mergekit()
    assert set(VALUES) | REFUSED <= set(flags)
    for flag in flags:
        arguments = [flag, VALUES[flag]] if flag in VALUES else [flag]
        if flag in REFUSED:
            with pytest.raises(click.UsageError, match=f"{flag}: mergeplan "):
                parse(*arguments)
        else:
            parse(*arguments)


def test_every_flag_of_mergekit_is_in_the_docs(request):
    text = (request.config.rootpath / "docs" / "flags.md").read_text()
    # Of `--x` and `--no-x` the first stands for both.
    missing = [flag for flag in flags_of_mergekit() if f"`{flag}" not in text]
    assert [flag for flag in missing if not flag.startswith("--no-")] == []


def test_flags_with_a_meaning_reach_the_options():
    given = parse(
        "--lora-merge-dtype", "float16", "--lora-exact", "--transformers-cache", "cache",
        "--allow-crimes", "--trust-remote-code", "--unsafe-truncate-embeddings",
        "--num-threads", "3", "--out-shard-size", "2k", "--no-copy-tokenizer",
        "--no-write-model-card", "--random-seed", "7", "--device", "cuda:1", "--cuda", "--gpu-rich",
    )  # fmt: skip
    expected = {
        "lora_merge_dtype": "float16",
        "lora_exact": True,
        "transformers_cache": "cache",
        "allow_crimes": True,
        "trust_remote_code": True,
        "unsafe_truncate_embeddings": True,
        "threads": 3,
        "out_shard_size": 2000,
        "copy_tokenizer": False,
        "write_model_card": False,
        "random_seed": 7,
        "device": "cuda:1",
        "cuda": True,
        "gpu_rich": True,
    }
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize("flag", [flag.partition("/")[0] for flag in UNNEEDED])
def test_what_has_no_effect_is_said_unless_quiet(flag, capsys):
    arguments = [flag, VALUES[flag]] if flag in VALUES else [flag]
    parse(*arguments, "--quiet")
    assert capsys.readouterr().err == ""
    parse(*arguments)
    assert f"warning: `{flag}` has no effect: " in capsys.readouterr().err


def test_a_refusal_is_one_of_usage_and_writes_nothing(config, small_models):
    run = cli("merge", config, small_models / "out", "--no-safe-serialization")
    assert run.returncode == 2
    assert "a pickled checkpoint can run code" in run.stderr
    assert not (small_models / "out").exists()
