"""What a release is made of agrees with itself: changelog, citation, workflow, checked files."""

import importlib.util
import re
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check():
    """.ci/check_dist.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("check_dist", ROOT / ".ci/check_dist.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_changelog_has_the_form_of_keep_a_changelog():
    headings = re.findall(r"^(#+ .+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[:2] == ["# Changelog", "## [Unreleased]"]
    release = r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d"
    allowed = rf"{release}|### (Added|Changed|Deprecated|Removed|Fixed|Security)"
    assert [one for one in headings[2:] if not re.fullmatch(allowed, one)] == []


def test_citation_has_the_version_and_licence_of_the_crates(check):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == check.version()
    assert citation["license"] == "Apache-2.0"
    assert citation["references"][0]["url"].endswith("2509.24244")


def test_actions_of_the_release_are_pinned_by_commit_and_only_one_job_may_publish():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    used = [
        step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", one)] == []
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in workflow["jobs"].items() if "permissions" in job] == ["publish"]


def wheel_of(check, folder: Path, *, without: str = "", beside: str = "") -> Path:
    """A wheel of empty files by the names that git has."""
    info = f"mergeplan-{check.version()}.dist-info"
    names = {name.removeprefix("python/") for name in check.tracked("python/mergeplan")}
    names |= {f"{info}/{name}" for name in ("METADATA", "licenses/LICENSE", "sboms/x.json")}
    names |= {"mergeplan/_native.abi3.so", beside or f"{info}/RECORD"}
    path = folder / "x.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(names - {without}):
            archive.writestr(name, "")
    return path


def test_wheel_of_what_git_has_passes(check, tmp_path):
    assert check.main([str(wheel_of(check, tmp_path))]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"without": "mergeplan/py.typed"}, "lacks `mergeplan/py.typed`"),
        ({"without": "mergeplan/_native.abi3.so"}, "lacks `mergeplan/_native"),
        ({"beside": "mergeplan/.env"}, "has `mergeplan/.env`, which git has not"),
        ({"beside": "id_rsa"}, "has `id_rsa`, which git has not"),
    ],
)
def test_wheel_that_lacks_a_file_or_has_a_stray_one_is_named(check, tmp_path, capsys, change, said):
    assert check.main([str(wheel_of(check, tmp_path, **change))]) == 1
    assert said in capsys.readouterr().err


def test_tag_of_another_version_or_of_one_without_its_day_is_refused(check, capsys):
    assert check.main(["--tag", "v999.0.0"]) == 1
    assert "is not `v" in capsys.readouterr().err
