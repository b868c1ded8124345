"""The tool that measures clusters takes a folder to make, or says why not."""

import signal
import sys

import pytest

from tests.tools.cluster import __main__ as tool


@pytest.mark.skipif(sys.platform == "win32", reason="no clusters of namespaces there")
@pytest.mark.parametrize("verb", ["traffic", "losses"])
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_cannot_be_made_is_told_in_one_line(verb, there, tmp_path, monkeypatch):
    folder = tmp_path if there else tmp_path / "no" / "x"
    monkeypatch.setattr(tool, "why_not", lambda: None)
    monkeypatch.setattr(sys, "argv", ["cluster", verb, str(folder)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        tool.main()
    assert str(caught.value.code).startswith(f"cannot make `{folder}`: ")
    assert "\n" not in caught.value.code
    assert tmp_path.exists()
