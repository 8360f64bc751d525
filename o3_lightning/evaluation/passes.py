"""Passes of a gated model over rows: gate weights, greedy answers, token scores and gradient norms.

Rows run in batches of similar length. The batches are formed over all rows before processes share them, so a
row has the same batch and bit for bit the same numbers on any number of processes.

Shapes: B rows, K requests.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from o3_lightning.common.errors import InputError
from o3_lightning.common.progress import Progress
from o3_lightning.data.encoding import IGNORED, collate, encode_pairs
from o3_lightning.data.prompts import Prompt, read_prompt
from o3_lightning.gating.answer_logits import answer_logits
from o3_lightning.gating.answering import generate_tokens
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.tokens import batches
from o3_lightning.metrics.collection import RowCollector
from o3_lightning.metrics.membership import gradient_norm
from o3_lightning.metrics.token_scores import TokenScores, score_rows
from o3_lightning.training.processes import ALONE, Processes

FIELDS = 4  # tensors of `TokenScores`


@dataclass(frozen=True)
class BatchRunner:
    """Runs a function over rows in batches of similar length and gathers the results from all processes.

    Args:
        batch_size: rows per batch, 1 or more.
        processes: the processes that share the batches; batch i runs on process i modulo their number.
        name: of the split or the work, to show progress.
    """

    batch_size: int
    processes: Processes = ALONE
    name: str = ""

    def map(
        self,
        lengths: Sequence[int],
        function: Callable[[list[int]], Sequence[Tensor]],
        what: str,
        dtype: torch.dtype = torch.float32,
    ) -> list[Tensor]:
        """Returns one tensor [any length] per row, in the order of the rows, in every process, on the CPU.

        Args:
            lengths: of the rows; rows of similar length share a batch.
            function: maps the row numbers of a batch to one tensor per row.
            what: is done with the rows, to show progress.
            dtype: of the results.
        """
        mine = batches(lengths, self.batch_size)[self.processes.rank :: self.processes.count]
        collector = RowCollector(dtype, sync=self.processes.count > 1)
        rows, shown = sum(map(len, mine)), self.processes.is_first
        with Progress(f"{self.name} {what}".strip(), rows, shown=shown) as progress:
            for chosen in mine:
                collector.update(chosen, function(chosen))
                progress.advance(len(chosen))
        return [row.reshape(-1) for row in collector.compute()]


def weigh(model: GatedModel, prompts: Sequence[Prompt], runner: BatchRunner) -> Tensor:
    """Returns the gate's weights [B,K] of prompts."""
    if not model.ids or not prompts:
        return torch.zeros(len(prompts), len(model.ids))
    rows = runner.map(
        [sum(len(turn.text) for turn in read_prompt(prompt)) for prompt in prompts],
        lambda chosen: list(model.weights([prompts[row] for row in chosen])),
        "gating",
    )
    return torch.stack(rows)


def answer_rows(
    model: GatedModel, rows: Sequence[list[int]], weights: Tensor, limit: int, runner: BatchRunner
) -> list[list[int]]:
    """Returns the tokens of the greedy answer to each templated prompt; see `generate_tokens`."""

    def answer(chosen: list[int]) -> list[Tensor]:
        part = [rows[row] for row in chosen]
        found = generate_tokens(model, part, weights[chosen], limit, len(chosen))
        return [torch.tensor(tokens, dtype=torch.int64) for tokens in found]

    answers = runner.map([len(row) for row in rows], answer, "answering", torch.int64)
    return [tokens.tolist() for tokens in answers]


def score_pairs(
    model: GatedModel, prompts: Sequence[str], answers: Sequence[str], weights: Tensor, runner: BatchRunner
) -> list[TokenScores]:
    """Returns the token scores of each answer to its prompt, the end token included, in order.

    Only the answers' tokens pass the output layer, in chunks; float32 logits of a whole batch are never held.
    Other rows of a batch change at most the last digits. The weights are [B,K], held for the answers.

    Raises:
        InputError: a prompt leaves no room for an answer, the lists differ in length, or the model returns
            NaN.
    """
    base = model.base
    examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)

    def score(chosen: list[int]) -> list[Tensor]:
        batch = collate([examples[row] for row in chosen], model.tokens.pad_id).to(model.device)
        parts = answer_logits(model, batch, weights[chosen])
        fields = torch.cat([score_rows(*part).cpu() for part in parts], dim=1)
        if bool(fields.isnan().any()):  # a model that answers nothing correctly would look unlearned
            raise InputError(
                f"the model '{base.id}' returns NaN: its weights are damaged, or overflow their dtype; "
                "try base.dtype float32",
                field="base",
            )
        lengths = (batch.labels[:, 1:] != IGNORED).sum(1).tolist()
        return list(torch.split(fields, lengths, dim=1))

    rows = runner.map([len(example["input_ids"]) for example in examples], score, "scoring")
    return [TokenScores.from_rows(row.view(FIELDS, -1)) for row in rows]


def gradient_norms(
    model: GatedModel,
    prompts: Sequence[str],
    answers: Sequence[str],
    weights: Tensor,
    runner: BatchRunner,
    *,
    drop_last: bool = False,
) -> list[float]:
    """Returns B norms of the gradients of each row's mean loss, by the base model's parameters.

    With `drop_last` the loss leaves out the last token, of answers that have more than one.

    Each row runs alone, at its weights of [B,K]; the parameters are unchanged afterwards.
    """
    base = model.base
    examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)
    for example in examples if drop_last else ():
        if example["labels"][-2] != IGNORED:
            example["labels"][-1] = IGNORED

    def norms(chosen: list[int]) -> list[Tensor]:
        found = []
        with differentiable(base.model) as parameters:
            for row in chosen:
                batch = collate([examples[row]], model.tokens.pad_id).to(model.device)
                output = model(batch.input_ids, batch.attention_mask, batch.labels, weights[[row]])
                found.append(gradient_norm(output.loss, parameters))
        return list(torch.tensor(found, dtype=torch.float64))

    rows = runner.map([len(example["input_ids"]) for example in examples], norms, "gradients", torch.float64)
    return [row.item() for row in rows]


@contextmanager
def differentiable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Enables gradients of a model's floating-point parameters within the context; yields the parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield parameters
    finally:
        for parameter, needed in zip(parameters, before, strict=True):
            parameter.requires_grad_(needed)
