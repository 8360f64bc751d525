"""`o3-lightning ask "..."`: one question to the base and the gated model, side by side."""

import sys

from o3_lightning.commands.common import config_parser, open_gated_model, read_arguments
from o3_lightning.common.errors import InputError
from o3_lightning.run.config import RunConfig
from o3_lightning.run.parsing import build

BAR = 20


def main(arguments: list[str]) -> None:
    """Prints both answers to each question, and the weight of every request."""
    words = "one question or several, each in quotes"
    parser = config_parser("ask", RunConfig, trainer=True, words=words)
    namespace = read_arguments(parser, arguments)
    config = build(RunConfig, namespace)
    questions = list(namespace["words"] or [])
    if not questions or not all(question.strip() for question in questions):
        raise InputError('expected a question, as in: ask --config FILE "Where was ... born?"')
    gated = open_gated_model(config)
    tokens = config.evaluation.max_new_tokens
    with gated.disabled():
        before = gated.answer(questions, max_new_tokens=tokens)
    after = gated.answer(questions, max_new_tokens=tokens)
    weights = gated.weights(questions)
    for row, question in enumerate(questions):
        lines = [question, f"  base   {before[row]}", f"  gated  {after[row]}", "  weights"]
        for name, weight in zip(gated.ids, weights[row].tolist(), strict=True):
            lines.append(f"    {name:<24} {weight:5.3f} {'#' * round(weight * BAR)}".rstrip())
        sys.stdout.write("\n".join(lines) + "\n")
