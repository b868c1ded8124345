"""What is said of a Ray cluster that is no longer there."""

import pytest

from mergeplan.system.ray import HeadLostError, cpus_of_nodes


class Headless:
    """Stands for the package."""

    shutdown = print

    def nodes(self):
        raise RuntimeError("no head")


def test_a_head_that_gives_an_error_is_lost_and_no_thread_says_more(capsys):
    with pytest.raises(HeadLostError, match="does not answer"):
        cpus_of_nodes(Headless())
    assert capsys.readouterr() == ("", "")
