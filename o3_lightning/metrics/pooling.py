"""O3's four accuracies, pooled over all requests and for each request by itself.

Shapes: B examples of a request or split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from o3_lightning.common.plain import mean_of

__all__ = ["OfficialAccuracies", "Pooled", "official_accuracies", "pool"]

Groups = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Pooled:
    """One metric over several groups of examples.

    Args:
        pooled: mean over all examples of all groups, as O3 reports; None where there is no value.
        mean: mean of the groups' means, in which a small request counts as much as a large one.
        groups: mean of each group; None where a group has no value.
        unparseable: examples without a value; they are in no mean.
    """

    pooled: float | None
    mean: float | None
    groups: Mapping[str, float | None]
    unparseable: int


@dataclass(frozen=True)
class OfficialAccuracies:
    """What O3's tables hold; each is an accuracy in [0, 1].

    Args:
        seen: S.U., on the prompts that were trained on, of all requests so far; lower is better.
        held_out: D.U., on other prompts of the same knowledge, of all requests so far; lower is better.
        retained: R.D., on the same benchmark's prompts that nobody asked to forget; higher is better.
        utility: U.1, U.2 ..., on other benchmarks; higher is better.
    """

    seen: Pooled
    held_out: Pooled
    retained: Pooled
    utility: Pooled


def pool(groups: Groups) -> Pooled:
    """Returns a metric's means over several groups.

    Example:
        >>> pool({"a": [1.0, 0.0, 0.0], "b": [1.0, None]})
        Pooled(pooled=0.5, mean=0.6666666666666666, groups={'a': 0.3333333333333333, 'b': 1.0}, unparseable=1)
    """
    means = {name: mean_of(values) for name, values in groups.items()}
    everything = [value for values in groups.values() for value in values]
    return Pooled(
        mean_of(everything),
        mean_of(list(means.values())),
        means,
        sum(value is None for value in everything),
    )


def official_accuracies(
    seen: Groups, held_out: Groups, retained: Groups, utility: Groups
) -> OfficialAccuracies:
    """Returns S.U., D.U., R.D. and the utilities, each pooled and by group.

    Args:
        seen: by request that was unlearned so far, B accuracies on its own prompts.
        held_out: the same on its held-out prompts.
        retained: by split of the same benchmark.
        utility: by other benchmark.

    Source:
        O3, section 5.1; its code counts an answer that it cannot read as wrong, so as forgotten; here it is
        counted apart.
    """
    return OfficialAccuracies(pool(seen), pool(held_out), pool(retained), pool(utility))
