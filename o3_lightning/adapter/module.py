"""The Lightning module that trains one adapter: an objective, and a penalty on overlap with earlier adapters.

Lightning sees only the adapter's parameters, so that no precision or device setting changes the base model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from peft import PeftModel
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from o3_kernels import orthogonality_penalty, stack_history
from o3_lightning.adapter.batches import step_batches, step_counts
from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.initialisation import project_out, protected_spaces
from o3_lightning.adapter.injection import is_quantised, lora_factors
from o3_lightning.adapter.optimizers import make_optimizer
from o3_lightning.adapter.sharding import average_gradients, is_sharding
from o3_lightning.common.errors import O3Error
from o3_lightning.objectives.batch_views import DUAL_STEP, Objective, Settings, View
from o3_lightning.objectives.config import ObjectiveConfig

Fields = Mapping[str, Mapping[str, Tensor]]
EXCESS, COEFFICIENT = "retain_excess", "retain_coefficient"  # in the curve, if dual ascent adapts the latter


class AdapterTrainingError(O3Error):
    """Training failed: the loss or the adapter is not finite, or nothing was or could be learnt."""


class AdapterModule(LightningModule):
    """Trains the LoRA of a wrapped model.

    With several processes each holds a share of every batch and computes the same penalty, so that the
    averaged gradient counts the penalty once.

    Args:
        wrapped: a base model with one fresh LoRA.
        history: earlier adapters.
        config: shape and training.
        objective: the loss.
        steps: optimizer steps in all, for the learning rate.
        seed: of the objective's random draws.
    """

    def __init__(
        self,
        wrapped: PeftModel,
        history: AdapterHistory,
        config: AdapterConfig,
        objective: ObjectiveConfig,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._outside = [wrapped]  # in a list: Lightning must not move, cast or save it
        self.config, self.objective, self.steps, self.seed = config, objective, steps, seed
        self.factors = lora_factors(wrapped)
        self.trained = nn.ParameterList([factor for pair in self.factors.values() for factor in pair])
        self.first = [factor.detach().clone() for factor in self.trained]
        self.curve: list[dict[str, float]] = []
        self.earlier_steps = 0  # of a start that was stopped
        hard = config.mode == "hard"
        penalised = AdapterHistory() if hard or not config.penalty_coefficient else history
        self.earlier = {side: self.select(penalised, side) for side in config.sides}
        self.bases = {side: self.protect(history.side(side)) for side in config.sides if hard}

    @property
    def wrapped(self) -> PeftModel:
        """The model with its LoRA."""
        return self._outside[0]

    def protect(self, earlier: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the basis [D, K] of the earlier adapters' space for each trained module."""
        spaces = protected_spaces(earlier, self.config.rank)
        return {path: space.basis for path, space in spaces.items() if path in self.factors}

    def select(self, history: AdapterHistory, side: str) -> dict[str, Tensor]:
        """Returns the earlier factors of a side for each trained module that has any."""
        stacked = history.against(self.config.penalty_against).side(side)
        return {path: stacked[path] for path in self.factors if path in stacked}

    def on_fit_start(self) -> None:
        """Moves the base model and the earlier adapters to the trainer's device and prepares the model."""
        if not (is_quantised(self.wrapped.get_base_model()) or is_sharding(self.trainer)):
            self.wrapped.to(self.device)
        for side, old in self.earlier.items():
            placed = stack_history([tensor.to(self.device) for tensor in old.values()]) if old else []
            self.earlier[side] = dict(zip(old, placed, strict=True))
        for bases in self.bases.values():
            bases.update({path: basis.to(self.device) for path, basis in bases.items()})
        prepare_model(self.wrapped, self.config.gradient_checkpointing)

    def training_step(self, fields: Fields, index: int) -> Tensor:
        """Returns objective plus penalty of a batch; AdapterTrainingError if the adapter cannot change it."""
        forget, retain = self.objective.forget, self.objective.retain
        counts = step_counts(fields, self.trainer)
        views = self.views_of(fields, counts, forget.objective)
        parts = {"forget": forget.coefficient * forget.objective(views, forget.settings(self.seed))}
        dual: dict[str, Tensor] = {}
        if retain.objective is not None:
            views = self.views_of(fields, counts, retain.objective)
            excess, settings = retain.objective(views, retain.settings(self.seed)), retain.settings()
            coefficient = self.retain_coefficient(settings, index)
            parts["retain"] = coefficient * excess
            if hasattr(settings, DUAL_STEP):
                dual = {EXCESS: excess, COEFFICIENT: excess.new_tensor(coefficient)}
        penalty = self.penalty()
        if penalty is not None:
            parts["penalty"] = self.config.penalty_coefficient * penalty
        if not parts["forget"].requires_grad:
            raise AdapterTrainingError(
                "the loss does not depend on the adapter, so lora_B would receive no gradient; gradient "
                "checkpointing of a kind that cuts frozen inputs off is the usual cause"
            )
        loss = torch.stack([part.float() for part in parts.values()]).sum()
        self.record({"loss": loss, **parts, **dual})
        # Lightning divides by the batches of a whole step, also in a shorter one at the end of an epoch
        return loss * self.trainer.accumulate_grad_batches / step_batches(fields)

    def retain_coefficient(self, settings: Settings, index: int) -> float:
        """Returns the factor of the retain loss; objectives with a `dual_step` adapt it after each batch."""
        last = self.curve[-1] if self.curve else {}
        coefficient = last.get(COEFFICIENT, self.objective.retain.coefficient)
        batches = self.trainer.accumulate_grad_batches
        begun = self.earlier_steps + self.trainer.global_step + bool(index % batches)  # with the last batch's
        if COEFFICIENT in last and begun > settings.dual_warmup * self.steps:
            coefficient = max(0.0, coefficient + settings.dual_step * last[EXCESS] / batches)
        return coefficient

    def views_of(self, fields: Fields, counts: Mapping[str, Tensor], objective: Objective) -> dict[str, View]:
        """Returns the views an objective reads; the reference is computed first, as the model was before."""
        before: dict[str, tuple[Tensor, Tensor | None]] = {}
        if objective.reference:
            with torch.no_grad(), self.as_before():
                before = {name: self.run(fields[name], objective.hidden) for name in objective.reference}
        views = {}
        for name in objective.views:
            logits, hidden = self.run(fields[name], objective.hidden)
            reference, reference_hidden = before.get(name, (None, None))
            labels = fields[name]["labels"]
            views[name] = View(logits, labels, reference, hidden, reference_hidden, counts.get(name))
        return views

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Turns the adapter off, or puts back the factors that it began with, within the context."""
        if self.objective.reference == "base":
            with self.wrapped.disable_adapter():
                yield
            return
        now = [factor.detach().clone() for factor in self.trained]
        copy_into(self.trained, self.first)
        try:
            yield
        finally:
            copy_into(self.trained, now)

    def run(self, tokens: Mapping[str, Tensor], hidden: bool) -> tuple[Tensor, Tensor | None]:
        """Returns logits and, with `hidden`, the states of the configured layer."""
        output = self.wrapped(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            use_cache=False,
            output_hidden_states=hidden,
        )
        if not hidden:
            return output.logits, None
        states = output.hidden_states
        layer = getattr(self.objective.forget.settings(), "layer", None)
        return output.logits, states[len(states) // 2 if layer is None else min(layer, len(states) - 1)]

    def penalty(self) -> Tensor | None:
        """Returns the overlap with earlier adapters: summed over a layer's modules, mean over layers."""
        total = None
        for side, old in self.earlier.items():
            if old:
                new = [rows_of(self.factors[path], side) for path in old]
                value = orthogonality_penalty(new, list(old.values())) / self.layers
                total = value if total is None else total + value
        return total

    @property
    def layers(self) -> int:
        """Returns the number of adapted layers: modules whose paths end alike."""
        return max(1, len(self.factors) // len({path.rsplit(".", 1)[-1] for path in self.factors}))

    def record(self, parts: Mapping[str, Tensor]) -> None:
        """Logs the parts of a batch's loss, averaged over processes, and appends them to the curve."""
        scalars = torch.stack([part.detach().float() for part in parts.values()])
        if self.trainer.world_size > 1:
            scalars = self.trainer.strategy.reduce(scalars, reduce_op="mean")
        values = dict(zip(parts, scalars.tolist(), strict=True))
        self.curve.append(values)
        self.log_dict(values, prog_bar=True)

    def configure_model(self) -> None:
        """Does nothing: the base model is sharded already, and its adapter is not sharded."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Averages the gradients of the unsharded factors; Lightning's sharding strategy does not."""
        if is_sharding(self.trainer):
            average_gradients(list(self.trained))

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Steps, then projects the factors out of the protected spaces ("hard" mode)."""
        super().optimizer_step(*arguments, **options)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Projects the factors onto the complement of the protected spaces."""
        for side, bases in self.bases.items():
            for path, basis in bases.items():
                rows = rows_of(self.factors[path], side)
                rows.copy_(project_out(rows, basis))

    def configure_optimizers(self) -> Any:
        """Returns the optimizer with a linear warm-up and a linear decay to zero."""
        config = self.config
        optimizer = make_optimizer([factor for factor in self.trained if factor.requires_grad], config)
        warmup = max(1, round(config.warmup_fraction * self.steps))

        def factor(since: int) -> float:
            step = self.earlier_steps + since
            return min((step + 1) / warmup, max(0.0, (self.steps - step) / max(1, self.steps - warmup)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips to the configured norm, unless it is 0."""
        if self.config.clip:
            nn.utils.clip_grad_norm_(list(self.trained.parameters()), self.config.clip)


def copy_into(factors: Iterable[nn.Parameter], values: Iterable[Tensor]) -> None:
    """Overwrites factors without a trace in the graph."""
    for factor, value in zip(factors, values, strict=True):
        factor.data.copy_(value)


def rows_of(pair: tuple[Tensor, Tensor], side: str) -> Tensor:
    """Returns lora_A [R,D] for the input side, lora_B transposed [R,O] for the output side."""
    return pair[0] if side == "input" else pair[1].T


def prepare_model(wrapped: PeftModel, gradient_checkpointing: bool) -> None:
    """Turns dropout off in the base model and on in the adapter.

    Checkpointed layers must be in training mode to be recomputed; they are in evaluation mode while they run.
    """
    for name, module in wrapped.named_modules():
        module.training = ".lora_dropout." in name
    if gradient_checkpointing:
        base: Any = wrapped.get_base_model()
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for layer in base.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training, whole = True, vars(layer)["_gradient_checkpointing_func"]
                vars(layer)["_gradient_checkpointing_func"] = partial(run_evaluating, layer, whole)


def run_evaluating(
    layer: nn.Module, checkpoint: Callable[..., Any], forward: Callable[..., Any], *inputs: Any
) -> Any:
    """Checkpoints a layer, which is in evaluation mode while it is computed."""

    def run(*inputs: Any) -> Any:
        layer.training = False
        try:
            return forward(*inputs)
        finally:
            layer.training = True

    return checkpoint(run, *inputs)
