"""Every objective by name. Adding one is a file with a loss and its line here."""

from __future__ import annotations

from o3_lightning.objectives import (
    ap,
    ceu,
    dpo,
    ga,
    gd,
    kl,
    llmu,
    me,
    npo,
    random_labels,
    refusal,
    rmu,
    satimp,
    simnpo,
    undial,
    wga,
)
from o3_lightning.objectives.batch_views import Objective

__all__ = ["FORGET", "RETAIN"]

FORGET: dict[str, Objective] = {
    module.OBJECTIVE.name: module.OBJECTIVE
    for module in (random_labels, refusal, ga, npo, simnpo, dpo, me, undial, wga, satimp, ceu, rmu, llmu)
}
RETAIN: dict[str, Objective] = {
    module.RETAIN_OBJECTIVE.name: module.RETAIN_OBJECTIVE for module in (gd, kl, ap, rmu)
}
