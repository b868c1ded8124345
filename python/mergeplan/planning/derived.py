"""Models that a plan computes from its others: tensors put together, or with other rows."""

from mergeplan.checkpoints.plan_models import Derived, Made, TensorRef


class DerivedModels:
    """The computed tensors of a plan, one model of them for each model that they belong to.

    Args:
        first_number: How many models the plan has already; those here are numbered on from there.
    """

    def __init__(self, first_number: int) -> None:
        self._first = first_number
        self._of: dict[int, dict[str, Made]] = {}
        self._numbers: dict[int, int] = {}

    def add(self, model: int, name: str, how: Made) -> TensorRef:
        """Note a tensor of a model, by the model's number; returns how jobs refer to it."""
        number = self._numbers.setdefault(model, self._first + len(self._numbers))
        self._of.setdefault(model, {})[name] = how
        return TensorRef(number, name)

    @property
    def models(self) -> tuple[Derived, ...]:
        """As the plan lists them behind the others."""
        return tuple(map(Derived, self._of.values()))
