"""An objective of somebody else: declared in a few lines, checked and computed like our own."""

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.objectives import ANSWER, FORGET, Parameter, Settings, View, forget_objective, row_nll
from o3_lightning.objectives.config import ForgetObjective, RetainObjective
from o3_lightning.objectives.registry import describe_parameters


@forget_objective(
    "shy", ANSWER, parameters=[Parameter("strength", 2.0, "factor of the loss, above 0", open=True)]
)
def shy(views, settings):
    answer = views[ANSWER]
    return -settings.strength * row_nll(answer.logits, answer.labels).mean()


def test_an_objective_of_a_plugin_is_configured_and_computed_like_our_own():
    view = View(torch.zeros(1, 3, 4), torch.tensor([[-100, 2, 1]]))
    own = ForgetObjective("shy", parameters={"strength": 3.0})
    assert own.objective({ANSWER: view}, own.settings()).item() == pytest.approx(
        -3 * 2 * torch.log(torch.tensor(4.0)).item()
    )
    assert ForgetObjective("shy").settings(7) == Settings(strength=2.0, seed=7)
    assert "shy.strength = 2.0: factor of the loss, above 0." in describe_parameters(FORGET)


def test_an_unknown_parameter_tells_the_nearest_one_of_the_method():
    with pytest.raises(InputError, match=r"parameters\.strenght.*'shy' has strength; did you mean"):
        ForgetObjective("shy", parameters={"strenght": 1.0})
    with pytest.raises(InputError, match=r"objective\.retain\.parameters\.beta.*'gd' has none"):
        RetainObjective("gd", parameters={"beta": 1.0})
