"""A run goes on with what it measured: changed options are named, and sizes may be added."""

from dataclasses import replace

import pytest

from mergeplan.calibration.going_on import HALF, MAX_TOKENS, SEED, WINDOWS, go_on
from mergeplan.calibration.identity import RunIdentity, models_of
from mergeplan.calibration.run_folder import RunFolder
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import SCORES
from mergeplan.pool.pool import load_pool

OPTIONS = {MAX_TOKENS: 300, SEED: 0, HALF: "all", WINDOWS: [None, None]}
BEFORE = RunIdentity({}, {"the text of size 1": "a"}, OPTIONS)


@pytest.mark.parametrize(
    ("change", "said", "hint"),
    [
        ({MAX_TOKENS: 700}, "`--max-tokens` was 300 in .* and is 700", "`--max-tokens 300` again"),
        ({MAX_TOKENS: None}, "and is not given now", "give `--max-tokens 300` again"),
        ({SEED: 3}, "`--seed` was 0 in .* and is 3 now", "give `--seed 0` again"),
        ({HALF: "check"}, "`--half` was all in .* and is check now", "give `--half all` again"),
        (
            {WINDOWS: [64, None]},
            "`--max-length` was not given in .* 64",
            "leave `--max-length` out",
        ),
        ({WINDOWS: [None, 8]}, "`--stride` was not given in .* 8 now", "leave `--stride` out"),
    ],
)
def test_an_option_that_changed_is_named_with_both_values(tmp_path, change, said, hint):
    # The hash of the texts changes with it, and is not the reason.
    now = RunIdentity({}, {"the text of size 1": "b"}, OPTIONS | change)
    with pytest.raises(InputError, match=said) as refused:
        go_on(tmp_path, BEFORE, now)
    assert hint in (refused.value.hint or "")


def test_a_run_that_recorded_no_seed_goes_by_its_texts(tmp_path):
    old = {name: value for name, value in OPTIONS.items() if name not in (SEED, HALF)}
    assert go_on(tmp_path, replace(BEFORE, arithmetic=old), BEFORE) == BEFORE
    now = replace(BEFORE, texts={"the text of size 1": "b"})
    with pytest.raises(InputError, match="the pool's text has changed") as refused:
        go_on(tmp_path, replace(BEFORE, arithmetic=old), now)
    assert "`--seed` and `--half`" in (refused.value.hint or "")


def test_until_something_is_measured_a_run_takes_other_options(tmp_path):
    run, other = tmp_path / "run", replace(BEFORE, arithmetic=OPTIONS | {MAX_TOKENS: 700})
    RunFolder(run, BEFORE).close()
    RunFolder(run, other).close()
    (run / SCORES).write_text("{}\n")
    RunFolder(run, other).close()
    with pytest.raises(InputError, match="`--max-tokens` was 700"):
        RunFolder(run, BEFORE)


def test_a_size_is_added_at_the_end_and_none_is_left_out(demo_pool, tmp_path):
    pool = load_pool(demo_pool / "pool.yml")
    (size,) = pool.sizes
    small = replace(size, experts={name: size.experts[name] for name in ("md", "js")})
    large = replace(small, base=size.experts["perl"], experts={"md": size.experts["md"]})

    def identity(*sizes):
        texts = {f"the text of size {n + 1}": "a" for n in range(len(sizes))}
        return RunIdentity(models_of(replace(pool, sizes=sizes)), texts, OPTIONS)

    one, both = identity(small).with_content(), identity(small, large)
    grown = go_on(tmp_path, one, both)
    assert grown == both.with_content()
    assert go_on(tmp_path, grown, both) == grown
    with pytest.raises(InputError, match="base of size 2 is no longer in"):
        go_on(tmp_path, grown, identity(small))
    with pytest.raises(InputError, match="of size 1") as refused:
        go_on(tmp_path, one, identity(large, small))
    assert "add sizes at the end" in (refused.value.hint or "")
