"""Tables that no law is fitted to, and answers that nothing is good enough."""

from tests.support.commands import Done
from tests.support.troubles.bench import Bench, produces

HEAD = "k,subset,loss_nats,method,domain,pool_size\n"
BASE, SINGLES = "0,,1.5,base,macro,3\n", "".join(f"1,{e},1.9,average,macro,3\n" for e in "abc")
PAIRS = "".join(f"2,{pair},1.8,average,macro,3\n" for pair in ("a+b", "a+c", "b+c"))
ALL = "3,a+b+c,1.7,average,macro,3\n"


def ask(bench: Bench, command: str, table: str, *options: object) -> Done:
    """Ask a command about a table."""
    (bench.folder / "measurements.csv").write_text(table)
    return bench.run(command, "measurements.csv", *options)


@produces("`FILE`: column `NAME` is missing; found …")
def no_k(bench: Bench) -> Done:
    return ask(bench, "fit", "subset,loss_nats\na,1.9\na+b,1.8\n")


@produces("nothing to fit: …: needs losses at two different k or more")
def one_k(bench: Bench) -> Done:
    return ask(bench, "fit", HEAD + BASE + SINGLES)


@produces("`NAME`: N merges of k = … are too few, expected N or more, of two different k")
def singles_alone(bench: Bench) -> Done:
    return ask(bench, "select", HEAD + BASE + SINGLES)


@produces("nothing beats the base")
def no_better(bench: Bench) -> Done:
    return ask(bench, "select", HEAD + BASE + SINGLES + PAIRS + ALL)


@produces("nothing reaches a loss of N")
def out_of_reach(bench: Bench) -> Done:
    return ask(bench, "suggest", HEAD + SINGLES + PAIRS + ALL, "--target-loss", 0.5)


@produces("several metrics were measured: …")
def several(bench: Bench) -> Done:
    rows = "".join(
        f"{k},{m},0.{k}{i},higher\n" for i, m in enumerate(("acc", "f1")) for k in (1, 2)
    )
    return ask(bench, "fit", f"k,metric,value,better\n{rows}")


@produces("`FILE`: no rows of metric `NAME`")
def other_metric(bench: Bench) -> Done:
    return ask(bench, "fit", HEAD + SINGLES + PAIRS, "--metric", "accuracy")


@produces("`FILE`, row N: more cells than the head has columns")
def decimal_commas(bench: Bench) -> Done:
    return ask(bench, "fit", "k,loss_nats\n1,1,9\n2,1,8\n")


@produces(
    "`FILE`: two pools in one table: column `pool_hash` is `HASH` in row N and `HASH` in row N"
)
def two_pools(bench: Bench) -> Done:
    return ask(bench, "fit", "k,subset,loss_nats,pool_hash\n1,a,2,0f3a\n2,a+b,1.9,9c71\n")
