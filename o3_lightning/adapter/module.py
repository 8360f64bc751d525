"""The Lightning module that trains one adapter: an objective, and a penalty on overlap with earlier adapters.

Lightning sees the adapter's parameters only. The base model stays outside of its reach, so that no precision
or device setting of a trainer changes a bit of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from peft import PeftModel
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from o3_kernels import orthogonality_penalty, stack_history
from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.injection import is_quantised, lora_factors, without_adapter
from o3_lightning.adapter.sharding import average_gradients, is_sharding
from o3_lightning.adapter.steps import STEP, step_counts, step_share
from o3_lightning.adapter.subspace import project_out, protected_spaces
from o3_lightning.common.errors import O3Error
from o3_lightning.data.encoding import TokenBatch
from o3_lightning.objectives.batch_views import Objective, View
from o3_lightning.objectives.config import ObjectiveConfig
from o3_lightning.objectives.reductions import counted_together

__all__ = ["AdapterModule", "AdapterTrainingError"]


class AdapterTrainingError(O3Error):
    """Training went astray: the loss or the adapter is not finite, or nothing was or could be learnt."""


class AdapterModule(LightningModule):
    """Trains the LoRA of a wrapped model.

    Several processes each hold a share of every batch; their losses are parts of the whole batch's, and the
    penalty, which all of them compute alike, counts once.

    Args:
        wrapped: a base model with one fresh LoRA.
        history: earlier adapters.
        config: shape and training.
        objective: what is trained.
        steps: optimizer steps in all, for the learning rate.
        seed: of what an objective draws.
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
        self._outside = [wrapped]  # in a list, so that Lightning neither moves nor casts nor saves it
        self.config, self.objective, self.steps, self.seed = config, objective, steps, seed
        self.factors = lora_factors(wrapped)
        self.trained = nn.ParameterList([factor for pair in self.factors.values() for factor in pair])
        self.curve: list[dict[str, float]] = []
        self.earlier_steps = 0  # of a start that was stopped
        hard = config.mode == "hard"
        penalised = AdapterHistory() if hard or not config.penalty_coefficient else history
        self.earlier = {side: self.select(penalised, side) for side in config.sides}
        self.spaces = {
            side: protected_spaces(history.side(side), config.rank) for side in config.sides if hard
        }

    @property
    def wrapped(self) -> PeftModel:
        """The model with its LoRA."""
        return self._outside[0]

    def select(self, history: AdapterHistory, side: str) -> dict[str, Tensor]:
        """Returns the earlier factors of a side, for each module that has any."""
        stacked = history.against(self.config.penalty_against).side(side)
        return {path: stacked[path] for path in self.factors if path in stacked}

    def on_fit_start(self) -> None:
        """Brings the base model and the earlier adapters to the trainer's device, ready for training."""
        if not (is_quantised(self.wrapped.get_base_model()) or is_sharding(self.trainer)):
            self.wrapped.to(self.device)
        for side, old in self.earlier.items():
            placed = stack_history([tensor.to(self.device) for tensor in old.values()]) if old else []
            self.earlier[side] = dict(zip(old, placed, strict=True))
        self.spaces = {
            side: {path: space.to(self.device) for path, space in spaces.items() if path in self.factors}
            for side, spaces in self.spaces.items()
        }
        prepare_model(self.wrapped, self.config.gradient_checkpointing)

    def training_step(self, fields: Mapping[str, Mapping[str, Tensor]], index: int) -> Tensor:
        """Returns objective plus penalty of a batch; of a step's batches all tokens, or rows, count alike.

        Raises:
            AdapterTrainingError: the loss does not depend on the adapter.
        """
        batch = {view: TokenBatch(**tensors) for view, tensors in fields.items() if view != STEP}
        with counted_together(self.trainer.world_size, step_counts(fields)):
            parts = {"forget": self.forget_loss(batch), **self.retain_loss(batch)}
        penalty = self.penalty()
        if penalty is not None:
            parts["penalty"] = self.config.penalty_coefficient * penalty * step_share(fields)
        if not parts["forget"].requires_grad:
            raise AdapterTrainingError(
                "the loss does not depend on the adapter, so lora_B would receive no gradient; gradient "
                "checkpointing of a kind that cuts frozen inputs off is the usual cause"
            )
        loss = torch.stack([part.float() for part in parts.values()]).sum()
        self.record({"loss": loss, **parts})
        return loss

    def forget_loss(self, batch: Mapping[str, TokenBatch]) -> Tensor:
        """Returns the scaled loss on the forget set."""
        forget = self.objective.forget
        return forget.coefficient * forget.objective(
            self.see(batch, forget.objective), forget.settings(self.seed)
        )

    def retain_loss(self, batch: Mapping[str, TokenBatch]) -> dict[str, Tensor]:
        """Returns the scaled loss on retained data, if there is any."""
        retain = self.objective.retain
        if retain.objective is None:
            return {}
        loss = retain.objective(self.see(batch, retain.objective), retain.settings(self.seed))
        return {"retain": retain.coefficient * loss}

    def see(self, batch: Mapping[str, TokenBatch], objective: Objective) -> dict[str, View]:
        """Returns the views an objective reads; the reference comes first, with the adapter off."""
        before: dict[str, tuple[Tensor, Tensor | None]] = {}
        if objective.reference:
            with torch.no_grad(), without_adapter(self.wrapped):
                before = {name: self.run(batch[name], objective.hidden) for name in objective.reference}
        views = {}
        for name in objective.views:
            logits, hidden = self.run(batch[name], objective.hidden)
            reference, reference_hidden = before.get(name, (None, None))
            views[name] = View(logits, batch[name].labels, reference, hidden, reference_hidden)
        return views

    def run(self, tokens: TokenBatch, hidden: bool) -> tuple[Tensor, Tensor | None]:
        """Returns logits and, if asked for, the states of the configured layer."""
        output = self.wrapped(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
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
        """How many modules share an ending of their path."""
        return max(1, len(self.factors) // len({path.rsplit(".", 1)[-1] for path in self.factors}))

    def record(self, parts: Mapping[str, Tensor]) -> None:
        """Logs the parts of a step's loss, over all processes, and keeps them for the caller."""
        told = torch.stack([part.detach().float() for part in parts.values()])
        if self.trainer.world_size > 1:
            told = self.trainer.strategy.reduce(told, reduce_op="mean")
        values = dict(zip(parts, told.tolist(), strict=True))
        self.curve.append(values)
        self.log_dict(values, prog_bar=True)

    def configure_model(self) -> None:
        """Nothing is left to do: a sharded base model comes sharded, and its adapter is whole."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Averages the gradients where Lightning's strategy leaves whole parameters alone."""
        if is_sharding(self.trainer):
            average_gradients(list(self.trained))

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Steps, then takes out of the factors what lies in a protected space ("hard" mode)."""
        super().optimizer_step(*arguments, **options)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Puts the factors into the complement of the protected spaces exactly."""
        for side, spaces in self.spaces.items():
            for path, space in spaces.items():
                rows = rows_of(self.factors[path], side)
                rows.copy_(project_out(rows, space.basis))

    def configure_optimizers(self) -> Any:
        """Returns AdamW with a warm-up and a straight fall to zero."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.trained.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
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


def rows_of(pair: tuple[Tensor, Tensor], side: str) -> Tensor:
    """Returns lora_A [R,D] for the input side, lora_B transposed [R,O] for the output side."""
    return pair[0] if side == "input" else pair[1].T


def prepare_model(wrapped: PeftModel, gradient_checkpointing: bool) -> None:
    """Sets evaluation mode, for the base's own dropout is off, but for the adapter's dropout.

    With checkpointing a layer is in training mode, or it would not be recomputed, except while it runs.
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
    """Checkpoints a layer that is in evaluation mode whenever it is computed."""

    def run(*inputs: Any) -> Any:
        layer.training = False
        try:
            return forward(*inputs)
        finally:
            layer.training = True

    return checkpoint(run, *inputs)
