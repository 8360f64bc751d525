"""Gradient ascent with a margin: a row that is unlikely enough no longer moves the model."""

from o3_lightning.objectives import ANSWER, Parameter, forget_objective, mean_of_rows, row_nll

MARGIN = Parameter("margin", 6.0, "loss per token in nats at which a row counts as forgotten", open=True)


@forget_objective("bounded_ascent", ANSWER, parameters=[MARGIN])
def bounded_ascent(views, settings):
    """Returns the mean over rows of max(0, margin - loss per token)."""
    answer = views[ANSWER]
    loss = row_nll(answer.logits, answer.labels, per_token=True)
    return mean_of_rows((settings.margin - loss).clamp(min=0), answer)
