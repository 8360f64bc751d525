"""Objectives: what an adapter is trained to do with a forget set; losses by family behind one registry."""

from typing import TYPE_CHECKING

from o3_lightning.common.lazy import import_on_use
from o3_lightning.objectives.batch_views import (
    ANSWER,
    REFUSAL,
    RETAIN_REFUSAL,
    WRONG,
    Parameter,
    Settings,
    View,
)
from o3_lightning.objectives.batch_views import RETAIN as RETAINED
from o3_lightning.objectives.registry import FORGET, RETAIN, forget_objective, retain_objective

if TYPE_CHECKING:
    from o3_lightning.objectives.tokens import mean_nll, mean_of_rows, mean_of_tokens, row_nll, token_nll

__all__ = [
    "ANSWER",
    "FORGET",
    "REFUSAL",
    "RETAIN",
    "RETAINED",
    "RETAIN_REFUSAL",
    "WRONG",
    "Parameter",
    "Settings",
    "View",
    "forget_objective",
    "mean_nll",
    "mean_of_rows",
    "mean_of_tokens",
    "retain_objective",
    "row_nll",
    "token_nll",
]

TOKENS = ("mean_nll", "mean_of_rows", "mean_of_tokens", "row_nll", "token_nll")
__getattr__ = import_on_use(__name__, dict.fromkeys(TOKENS, "tokens"))
