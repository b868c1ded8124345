"""What a merge costs: training its experts, merging them, serving the result.

The default is in GPU hours and comes from the paper: training one model on nine domains took about
1,300 H800 hours at 72B (Fig. 2), so 2.0 hours for each expert and billion parameters; merging nine
experts took 0.63 to 0.82 hours at 72B (Table 13), so 0.0011. Serving costs nothing unless given.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mergeplan.system.ranges import Magnitude, check_number
from mergeplan.system.reading import COSTS
from mergeplan.system.strict import CLOSED, fit_strictly
from mergeplan.system.yamlfile import read_yaml


@dataclass(frozen=True)
class CostModel:
    """Costs in `unit`.

    Attributes:
        train: For each expert and billion parameters.
        train_fixed: For each expert.
        merge: For each expert and billion parameters.
        serve: For each billion parameters, whatever k.
    """

    __pydantic_config__: ClassVar = CLOSED

    unit: str = "GPU hours"
    train: Magnitude = 2.0
    train_fixed: Magnitude = 0.0
    merge: Magnitude = 0.0011
    serve: Magnitude = 0.0

    def __post_init__(self) -> None:
        """Raises `InputError` for what is no cost."""
        for name in ("train", "train_fixed", "merge", "serve"):
            check_number(getattr(self, name), name, 0, 1e12)

    def cost(self, n_billion: float, k: int) -> float:
        """Cost of a merge of k experts of this size.

        >>> round(CostModel().cost(0.5, 4), 4)
        4.0022
        """
        return k * ((self.train + self.merge) * n_billion + self.train_fixed) + (
            self.serve * n_billion
        )


def load_costs(path: Path) -> CostModel:
    """Read a cost file: a YAML mapping of the attributes of `CostModel`; what is left out keeps its
    default.

    Raises:
        MissingInputError: There is no such file.
        InputError: A key is unknown or a value is no cost.
    """
    return fit_strictly(read_yaml(path, COSTS, given=True), CostModel, f"costs `{path}`")
