"""`mergeplan init` as a user meets it: what it takes, what it leaves out, what it asks."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import mergeplan
from mergeplan.errors import SurroundingsError
from mergeplan.onboarding import looking
from mergeplan.onboarding.pool_text import left_out_lines
from tests.support.commands import cli


def model(folder: Path, width: int = 4, rows: int = 8, **config: object) -> Path:
    """A model of two tensors."""
    folder.mkdir(parents=True)
    shapes = {"model.embed_tokens.weight": (rows, width)}
    shapes["model.layers.0.mlp.up_proj.weight"] = (6, width)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    return folder


def adapter(folder: Path, base: object, width: int = 4) -> Path:
    """An adapter of rank 1 on the second tensor."""
    folder.mkdir(parents=True)
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    a, b = np.zeros((1, width), np.float32), np.zeros((6, 1), np.float32)
    save_file({name.format("A"): a, name.format("B"): b}, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["up_proj"]}
    (folder / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": base})
    )
    return folder


def texts(file: Path, count: int = 60) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(count)))
    return file


def made(*folders: object, **options: object) -> "mergeplan.NewPool":
    """What `init` made of them; the file loads, and says what the result says."""
    found = mergeplan.init([str(folder) for folder in folders], **options)  # type: ignore[arg-type]
    pool = mergeplan.load_pool(found.path)
    assert [list(size.experts) for size in pool.sizes] == [list(s.experts) for s in found.sizes]
    for size, ours in zip(pool.sizes, found.sizes, strict=True):
        assert size.base.samefile(ours.base.place)
        assert all(size.experts[name].samefile(place) for name, place in ours.experts.items())
    assert list(pool.data) == list(found.domains)
    assert all(pool.data[name].samefile(text.path) for name, text in found.domains.items())
    return found


def why(found: "mergeplan.NewPool", place: Path) -> str:
    return found.left_out[place]


@pytest.fixture
def small(tmp_path) -> Path:
    """A base, two models made from it, and a text."""
    for name in ("base", "code", "law"):
        model(tmp_path / "pool" / name)
    texts(tmp_path / "pool" / "eval" / "code.jsonl")
    return tmp_path / "pool"


def test_a_real_pool_is_written_and_calibrate_takes_it(demo_pool, tmp_path):
    for name in ("base", "html", "js"):
        shutil.copytree(demo_pool / name, tmp_path / "models" / name)
    texts(tmp_path / "models" / "texts" / "html.jsonl")
    run = cli("init", "models", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert "base `models/base`, 80.6k: its folder is called so" in run.stdout
    assert "2 experts (2 whole): html, js" in run.stdout
    assert "missing: texts by the name of `js`" in run.stdout
    assert "next: mergeplan calibrate models/pool.yml -o run/ --dry-run" in run.stdout
    text = (tmp_path / "models" / "pool.yml").read_text()
    assert "Qwen2ForCausalLM, float32" in text
    assert "  html: texts/html.jsonl  # 60 documents of `text`; of the expert html\n" in text
    run = cli("calibrate", "models/pool.yml", "-o", "run", "--dry-run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "at least:" in run.stdout


def test_json_says_what_was_taken_and_left_out(small):
    adapter(small / "lora", "../base")
    (small / "odd").mkdir()
    (small / "odd" / "model.safetensors").write_bytes(b"x")
    run = cli("init", small, "--dry-run", "--json")
    found = json.loads(run.stdout)
    assert (run.returncode, run.stderr, found["written"]) == (0, "", False)
    [size] = found["sizes"]
    assert size["base"] == str(small / "base")
    kinds = {one["name"]: one["adapter"] for one in size["experts"]}
    assert kinds == {"code": False, "law": False, "lora": True}
    assert [one["name"] for one in found["domains"]] == ["code"]
    assert [one["path"] for one in found["left_out"]] == [str(small / "odd")]
    assert not (small / "pool.yml").exists()
    written = json.loads(cli("init", small, "--json").stdout)
    assert written["written"]
    assert Path(written["path"]).read_text() == written["text"] == found["text"]


def test_a_file_that_is_there_stays_until_told_and_a_dry_run_only_prints(small):
    run = cli("init", small, "--dry-run")
    assert run.stdout.startswith("# A pool for mergeplan")
    assert "2 experts" in run.stderr
    assert not (small / "pool.yml").exists()
    (small / "pool.yml").write_text("sizes: mine")
    run = cli("init", small)
    assert (run.returncode, (small / "pool.yml").read_text()) == (1, "sizes: mine")
    assert "pass `--overwrite`" in run.stderr
    assert cli("init", small, "--overwrite", "-q").stdout == ""
    assert (small / "pool.yml").read_text() == cli("init", small, "--dry-run").stdout


@pytest.mark.parametrize(
    ("out", "may_go"),
    [
        ("code/model.safetensors", False),
        ("code/config.json", False),
        ("code.jsonl", False),
        ("merge.yml", False),
        ("geometry.json", False),
        ("notes.txt", False),
        ("damaged.yml", True),
        ("by-hand.yml", True),
        ("empty.yml", True),
    ],
)
def test_only_a_pool_is_replaced(out, may_go, small):
    texts(small / "code.jsonl")
    (small / "merge.yml").write_text("merge_method: linear\nmodels: []\n")
    (small / "geometry.json").write_text('{"format": "mergeplan-geometry", "sizes": []}')
    (small / "notes.txt").write_text("sizes matter: [")
    (small / "damaged.yml").write_text("# A pool for mergeplan, written by `mergeplan init`.\n[")
    (small / "by-hand.yml").write_text("sizes: [{base: gone}]\n")
    (small / "empty.yml").touch()
    before = (small / out).read_bytes()
    if may_go:
        mergeplan.init(small, small / out, overwrite=True)
        assert mergeplan.load_pool(small / out)
    else:
        with pytest.raises(SurroundingsError, match="exists, and is no pool"):
            mergeplan.init(small, small / out, overwrite=True)
        assert (small / out).read_bytes() == before


def test_the_file_goes_where_all_folders_lie_and_its_paths_are_relative(small, tmp_path):
    found = made(*(small / name for name in ("base", "code", "law")))
    assert found.path.resolve() == small / "pool.yml"
    elsewhere = tmp_path / "plans" / "p.yml"
    elsewhere.parent.mkdir()
    assert "- base: ../pool/base\n" in made(small, out=elsewhere).text
    with pytest.raises(mergeplan.SurroundingsError, match="lie together in `/` alone"):
        mergeplan.init([small, "/proc"])


def test_adapters_tell_the_base_by_path_by_name_and_on_the_disk(tmp_path):
    model(tmp_path / "m" / "tiny-1")
    adapter(tmp_path / "m" / "a", "../tiny-1")
    adapter(tmp_path / "m" / "b", "org/tiny-1")
    found = made(tmp_path / "m")
    assert found.sizes[0].why == "2 adapters name it as the base"
    assert set(found.sizes[0].notes.values()) == {"adapter"}
    model(tmp_path / "far" / "away")
    adapter(tmp_path / "n" / "c", str(tmp_path / "far" / "away"))
    assert made(tmp_path / "n").sizes[0].base.place == tmp_path / "far" / "away"


def test_an_adapter_of_an_absent_base_goes_where_it_fits_and_its_note_says_so(tmp_path):
    model(tmp_path / "x")
    adapter(tmp_path / "a", "org/unsloth-bnb-4bit")
    adapter(tmp_path / "b", None)
    found = made(tmp_path)
    assert found.sizes[0].why == "the only model that adapters fit"
    assert "names the base `org/unsloth-bnb-4bit`, which is not here; it fits" in found.text
    assert "names no base; it fits" in found.text
    adapter(tmp_path / "c", None, width=5)
    assert "does not fit the base" in why(made(tmp_path, overwrite=True), tmp_path / "c")


def test_config_files_tell_the_base(tmp_path):
    model(tmp_path / "start")
    model(tmp_path / "x", _name_or_path="org/start")
    model(tmp_path / "y", _name_or_path="../start")
    assert made(tmp_path).sizes[0].why == "config.json or the card of another model names it"


@pytest.mark.parametrize("key", ["base_model: org/start", "base_model:\n  - 'org/start'"])
def test_a_models_card_tells_the_base(tmp_path, key):
    model(tmp_path / "start")
    model(tmp_path / "x")
    (tmp_path / "x" / "README.md").write_text(f"---\nlicense: mit\n{key}\ntags: [a]\n---\nWords\n")
    assert made(tmp_path).sizes[0].base.name == "start"


def test_the_card_of_a_merge_or_words_below_its_head_tell_nothing(tmp_path):
    model(tmp_path / "start")
    model(tmp_path / "x")
    for text in (
        "---\nbase_model:\n- org/start\n- org/other\n---\n",
        "---\nlicense: mit\n---\nbase_model: org/start\n",
    ):
        (tmp_path / "x" / "README.md").write_text(text)
        with pytest.raises(mergeplan.InputError, match="nothing tells which"):
            mergeplan.init(tmp_path)


def test_models_of_the_hubs_cache_have_the_names_of_the_hub(tmp_path):
    for name in ("start-base", "code"):
        place = tmp_path / f"models--org--{name}"
        model(place / "snapshots" / "0a1b")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0a1b")
    (tmp_path / "models--org--old" / "snapshots").mkdir(parents=True)
    found = made(tmp_path)
    assert found.sizes[0].base.name == "start-base"
    assert found.sizes[0].experts["code"].name == "0a1b"
    assert "hub's cache" in why(found, tmp_path / "models--org--old")


def test_two_bases_are_never_chosen_between_in_silence(small):
    model(small / "other-base")
    run = cli("init", small)
    assert run.returncode == 1
    assert f"2 models could be the base: `{small}/base`, `{small}/other-base`" in run.stderr
    assert "--base FOLDER" in run.stderr
    assert not (small / "pool.yml").exists()
    run = cli("init", small, "--base", small / "other-base")
    assert run.returncode == 0
    assert "`--base` names it\n  3 experts (3 whole): pool-base, code, law" in run.stdout
    adapter(small / "lora", "../code")
    adapter(small / "lora2", "../law")
    with pytest.raises(mergeplan.InputError, match="2 models could be the base: .*code.*law"):
        mergeplan.init(small, dry_run=True)


@pytest.mark.parametrize("named", [".", "../odd", "x" * 5000, "a\0b", "../eval", 3])
def test_an_adapter_of_an_impossible_base_goes_where_it_fits(small, named):
    adapter(small / "odd", named)
    found = made(small)
    assert "odd" in found.sizes[0].experts
    assert "it fits" in found.sizes[0].notes["odd"]


def test_adapters_that_name_each_other_are_no_bases(small):
    adapter(small / "one", "../two")
    adapter(small / "two", "../one")
    assert {"one", "two"} <= set(made(small).sizes[0].experts)
    run = cli("inspect", small / "one")
    assert (run.returncode, "has an adapter of its own" in run.stderr) == (1, True)


def test_models_that_nothing_tells_apart_are_listed(tmp_path):
    for name in ("one", "two"):
        model(tmp_path / name)
    with pytest.raises(mergeplan.InputError, match="nothing tells which .*one.*two") as caught:
        mergeplan.init(tmp_path)
    assert "--base" in caught.value.hint


def test_sizes_of_several_bases_each_with_its_own_experts(tmp_path):
    for size, width in (("large", 40), ("small", 4)):
        for name in ("base", "code", "law"):
            model(tmp_path / size / name, width)
    model(tmp_path / "stray", width=7)
    found = made(tmp_path)
    assert [s.base.place.parent.name for s in found.sizes] == ["small", "large"]
    assert [list(s.experts) for s in found.sizes] == [["code", "law"]] * 2
    assert "does not fit the base" in why(found, tmp_path / "stray")
    model(tmp_path / "same" / "base", 5)
    model(tmp_path / "same" / "code", 5)
    with pytest.raises(mergeplan.InputError, match="of about the same size"):
        mergeplan.init(tmp_path, dry_run=True)
    kept = made(tmp_path, bases=[tmp_path / "same" / "base"], overwrite=True)
    assert [s.base.place.parent.name for s in kept.sizes] == ["same"]
    assert tmp_path / "large" / "code" in kept.left_out


def test_who_does_not_fit_is_left_out_with_the_reason(small):
    model(small / "more-tokens", rows=9)
    found = made(small)
    assert list(found.sizes[0].experts) == ["code", "law"]
    assert "[9, 4]" in why(found, small / "more-tokens")
    assert "more-tokens" in found.text
    shutil.rmtree(small / "code")
    shutil.rmtree(small / "law")
    with pytest.raises(mergeplan.InputError, match="no base with experts|no expert that fits"):
        mergeplan.init(small, overwrite=True)


def test_what_is_no_model_is_named_with_what_it_is(small):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (small / "pointer").mkdir()
    (small / "pointer" / "model.safetensors").write_text(pointer)
    for folder, file in (("pickles", "weights.pkl.pt"), ("llama", "q4.gguf")):
        (small / folder).mkdir()
        (small / folder / file).write_bytes(b"\x80\x02.")
    for name, file in (("merge", "mergeplan_manifest.json"), ("kit", "mergekit_config.yml")):
        shutil.copytree(small / "code", small / name)
        (small / name / file).write_text("{}")
    (small / "run").mkdir()
    (small / "run" / "run.json").write_text("{}")
    texts(small / "run" / "held_back.jsonl")
    model(small / "pipe")
    (small / "pipe" / "model_index.json").write_text("{}")
    found = made(small)
    assert list(found.sizes[0].experts) == ["code", "law"]
    assert list(found.domains) == ["code"]
    for place, word in {
        "pointer": "git-lfs pointer",
        "pickles": "weights.pkl.pt",
        "llama": "GGUF",
        "merge": "mergeplan wrote",
        "kit": "mergekit wrote",
        "run": "`calibrate` run",
        "pipe": "diffusers pipeline",
    }.items():
        assert word in why(found, small / place), place


def test_a_pickle_that_would_run_code_is_not_loaded(small):
    (small / "evil").mkdir()
    (small / "evil" / "config.json").write_text("{}")
    marker = small / "ran"
    (small / "evil" / "pytorch_model.bin").write_bytes(
        f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    )
    found = made(small)
    assert small / "evil" in found.left_out
    assert not marker.exists()


def test_links_hidden_folders_and_odd_names(small, tmp_path):
    (small / "around").symlink_to(small)
    (small / "again").symlink_to(small / "code")
    (small / "loop").symlink_to("loop")
    (small / "gone").symlink_to("nowhere")
    model(small / ".cache" / "hidden")
    model(small / "наука, ю+я")
    model(small / "two words: # no")
    model(small / "no")
    adapter(small / "bell\a", "../base")
    found = made(small)
    names = {"bell-", "code", "law", "no", "two-words:-#-no", "наука-ю-я"}
    assert set(found.sizes[0].experts) == names
    assert not found.left_out
    assert all(line.isprintable() for line in found.text.split("\n"))


def test_the_pool_that_odd_names_give_is_taken_by_calibrate(demo_pool, tmp_path):
    for name, copy in (("base", "base"), ("html", "a+b@c"), ("js", "Ω ω")):
        shutil.copytree(demo_pool / name, tmp_path / "p" / copy)
    texts(tmp_path / "p" / "no, x=1.jsonl")
    run = cli("init", tmp_path / "p")
    assert run.returncode == 0, run.stderr
    assert "1 domain: no-x-1\n" in run.stdout
    run = cli("calibrate", tmp_path / "p" / "pool.yml", "-o", tmp_path / "run", "--dry-run")
    assert run.returncode == 0, run.stderr


def test_a_name_that_is_no_utf8_is_left_out(small):
    odd = os.fsdecode(os.fsencode(small) + b"/caf\xe9")
    model(Path(odd))
    found = made(small)
    assert "no UTF-8" in why(found, Path(odd))
    assert "no UTF-8" in found.summary()


def test_a_folder_without_permission_is_named(small, monkeypatch):
    locked = small / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refuse(place: object) -> object:
        if Path(str(place)) == locked:
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)  # type: ignore[call-overload]

    monkeypatch.setattr(looking.os, "scandir", refuse)
    assert why(made(small), locked) == "cannot be read: Permission denied"


def test_of_a_training_the_last_checkpoint_is_taken_by_the_trainings_name(small):
    for step in (90, 100):
        model(small / "poems" / f"checkpoint-{step}")
    (small / "poems" / "checkpoint-200").mkdir()
    (small / "poems" / "trainer_state.json").write_text("{}")
    found = made(small)
    assert found.sizes[0].experts["poems"] == small / "poems" / "checkpoint-100"
    assert "earlier checkpoint" in why(found, small / "poems" / "checkpoint-90")


def test_thousands_of_files_and_folders_are_passed_over(small):
    (small / "many").mkdir()
    for n in range(2000):
        (small / "many" / f"{n}.log").touch()
    for n in range(300):
        (small / "many" / f"d{n}").mkdir()
    assert not made(small).left_out


def test_a_link_and_the_folder_itself_have_the_names_that_people_gave_them(tmp_path, monkeypatch):
    model(tmp_path / "store" / "0a1b")
    model(tmp_path / "pool" / "base")
    (tmp_path / "pool" / "code").symlink_to("../store/0a1b")
    monkeypatch.chdir(model(tmp_path / "pool" / "law"))
    found = mergeplan.init([".", "../code", "../base"])
    assert list(found.sizes[0].experts) == ["law", "code"]
    assert found.path.resolve() == tmp_path / "pool" / "pool.yml"
    assert "code: code\n" in found.text


def test_experts_of_one_name_and_folders_two_levels_deep(small):
    model(small / "more" / "code")
    model(small / "more" / "deep" / "er" / "unseen")
    assert list(made(small).sizes[0].experts) == ["code", "law", "more-code"]


def test_what_is_missing_is_said(tmp_path):
    model(tmp_path / "base")
    model(tmp_path / "code")
    (tmp_path / "notes.txt").write_text("text")
    found = made(tmp_path)
    assert "a second expert" in found.missing[0]
    assert "texts to measure on" in found.missing[1]
    assert "found 1 file of other kinds" in found.missing[1]
    assert "#   code: eval/code.jsonl" in found.text
    texts(tmp_path / "code.jsonl", 10)
    texts(tmp_path / "train" / "law.jsonl")
    (tmp_path / "settings.jsonl").write_text('{"rate": 1}\n')
    found = made(tmp_path, overwrite=True)
    assert list(found.domains) == ["code"]
    assert any(one.startswith("documents to check") for one in found.missing)
    assert "for training" in why(found, tmp_path / "train" / "law.jsonl")
    assert "found `rate`" in why(found, tmp_path / "settings.jsonl")


def test_texts_of_one_name_are_told_apart_and_data_takes_its_own(small):
    texts(small / "other" / "code.jsonl")
    texts(small / "macro.jsonl")
    assert list(made(small).domains) == ["pool-macro", "code", "other-code"]
    found = made(small, data=[f"mine={small}/other/code.jsonl"], overwrite=True)
    assert list(found.domains) == ["mine"]
    assert cli("init", small, "--data", small / "nothing", "--overwrite").returncode == 1


def test_a_long_text_is_judged_by_its_beginning(small):
    line = json.dumps({"text": "x" * 100_000}) + "\n"
    (small / "long.jsonl").write_text(line * 12)
    text = made(small).domains["long"]
    assert (text.n_documents, text.whole) == (10, False)


def test_the_parts_of_a_data_set_are_no_domains(small):
    for n in range(101):
        texts(small / "shards" / f"{n}.jsonl", 1)
    found = made(small)
    assert list(found.domains) == ["code"]
    assert "101 texts in one folder" in why(found, small / "shards" / "*.jsonl")


def test_a_base_that_is_no_folder_is_refused(small):
    run = cli("init", small, "--base", "org/name")
    assert (run.returncode, "is not a folder" in run.stderr) == (1, True)


def test_nothing_to_find_is_one_answer(tmp_path):
    for given, words in ((tmp_path, "no model or adapter"), (tmp_path / "x", "is not there")):
        run = cli("init", given)
        assert run.returncode == 1
        assert words in run.stderr
    adapter(tmp_path / "a", "org/absent")
    run = cli("init", tmp_path)
    assert "names the base `org/absent`, which is not here" in run.stderr
    model(tmp_path / "b", width=9)
    assert cli("init", tmp_path).returncode == 1
    assert cli("init").returncode == 2


def test_nothing_that_looks_at_a_pool_downloads_a_model(tmp_path, monkeypatch):
    hub, asked = pytest.importorskip("huggingface_hub"), []

    def snapshot(name, *, local_files_only, **_):
        asked.append((name, local_files_only))
        raise hub.errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    experts = {name: str(adapter(tmp_path / "loras" / name, "org/lost")) for name in ("a", "b")}
    own = adapter(tmp_path / "tuned", "org/lost")
    data = {"x": str(texts(tmp_path / "x.jsonl"))}
    for number, base in enumerate(("org/lost", own)):
        pool = tmp_path / f"pool{number}.yml"
        pool.write_text(
            json.dumps({"sizes": [{"base": str(base), "experts": experts}], "data": data})
        )
        for command in (("check",), ("calibrate", "-o", "run", "--dry-run"), ("similarity",)):
            assert cli(command[0], pool, *command[1:]).returncode == 1
    assert cli("init", tmp_path / "loras").returncode == 1
    assert asked
    assert all(name == "org/lost" and here for name, here in asked)


def test_what_is_left_out_is_a_sentence():
    one, other = Path("un/js.jsonl"), Path("un/md.jsonl")
    left_out = {
        one: f"cannot read `{one}`: Permission denied",
        other: f"`{other}`: expected a JSON object",
    }
    assert left_out_lines(left_out) == [
        "`un/js.jsonl`: cannot read: Permission denied",
        "`un/md.jsonl`: expected a JSON object",
    ]


def test_what_is_no_folder_is_not_said_to_be_missing():
    run = cli("init", "/dev/null")
    assert run.returncode == 1
    assert run.stderr.startswith("error: `/dev/null` is neither a folder nor a regular file")
