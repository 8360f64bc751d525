"""Baselines at inference, a plug-in of `experiments/field_2026`: sentence gate, rules, guard, corruption.

The sentence gate is a detector. Each of the others is a function of the unlearner and the requests so far
that returns the model to measure. None trains an adapter or writes text of a forget set: the names in rules
and questions are found anew from the requests.

Shapes: B rows, T tokens, D width, N texts, K requests, L layers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from o3_lightning.data.prompts import Prompt
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.data.templates import template_for
from o3_lightning.detector.base import DETECTORS
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.feature_evidence import Details, FeatureEvidence
from o3_lightning.detector.names import find_names
from o3_lightning.detector.prompt_features import PromptInputs
from o3_lightning.gating.linear import match_rows
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.plan import Plan
from o3_lightning.gating.routing import EveryPrompt
from o3_lightning.run.config import BASELINES
from o3_lightning.run.unlearner import Unlearner

Requests = Sequence[UnlearningRequest]
RULE = "Do not answer questions about {}. Say that you cannot help with them."
QUESTION = "Is the following question about {}? Answer Yes or No.\n\n{}"
STRENGTH, DIMENSIONS = 100.0, 1  # of the noise, as in ECO's README
NOISE_SEED = 0
CLOSE = 0.8  # cosine, as in the published code


def describe_subject(request: UnlearningRequest) -> str:
    """Returns the names that a request's prompts are about; its id where there are none."""
    names = [" ".join(words).title() for words in find_names(request.prompts).subjects]
    return ", ".join(names) or request.id.replace("_", " ").replace("-", " ")


@BASELINES.register("rules")
def with_rules(unlearner: Unlearner, requests: Requests) -> GatedModel:
    """Returns the base model with one rule for each request in its system prompt, and no gate.

    Without a chat template the rules precede the prompt.

    Source:
        ICCU (arXiv 2605.27138), whose rules are induced from the forget sets in context; ours name subjects.
    """
    base, config = unlearner.base, unlearner.config
    rules = "\n".join(RULE.format(describe_subject(request)) for request in requests)
    template = replace(base.template, before=f"{rules}\n\n{base.template.before}")
    if base.template.name == "chat" and base.template.chat is not None:
        own = base.template.chat.system_prompt
        chat = replace(base.template.chat, system_prompt=f"{own}\n{rules}".strip())
        template = template_for(base.tokenizer, "chat", chat)
    ruled = replace(base, template=template)
    return GatedModel.from_store(unlearner.store.path, ruled, unlearner.encoder, config.gate, only=())


@dataclass(frozen=True)
class PromptGuard(EveryPrompt):
    """Detectors that ask the base model whether a prompt is about the subject of a request.

    Args:
        ids: the requests.
        subjects: what the prompts of each are about.
        model: the base model without a gate.
    """

    subjects: Sequence[str]
    model: GatedModel

    def weights(self, prompts: Sequence[str]) -> Tensor:
        """Returns 1 where "Yes" is likelier than "No", else 0 [N, K]."""
        asked = [QUESTION.format(subject, prompt) for prompt in prompts for subject in self.subjects]
        yes, no = (
            torch.stack([row.sum() for row in self.model.score(asked, [word] * len(asked))])
            for word in ("Yes", "No")
        )
        return (yes > no).float().view(len(prompts), -1)


@BASELINES.register("prompt_guard")
def with_prompt_guard(unlearner: Unlearner, requests: Requests) -> GatedModel:
    """Returns the base model, which first judges each prompt itself and refuses those about a request.

    Source:
        Thaker et al. 2024, "Guardrail baselines for unlearning in LLMs".
    """
    ids = [request.id for request in requests]
    guard = PromptGuard(ids, [describe_subject(request) for request in requests], unlearner.gated_model(()))
    return GatedModel(unlearner.base, guard, dict.fromkeys(ids), unlearner.config.gate)


class CorruptedModel(GatedModel):
    """Runs rows that the gate would refuse on noisy embeddings of their prompts instead."""

    def _run(self, ids: Tensor, mask: Tensor, plan: Plan, options: Any) -> Any:
        if not bool(mask.all()) and self._ignores_padding_mask():
            return self._run_one_by_one(ids, mask, plan, options)
        with self.corrupting(plan.refused, mask):
            return super()._run(ids, mask, replace(plan, refused=torch.zeros_like(plan.refused)), options)

    @contextmanager
    def acting(
        self,
        weights: Tensor | Plan | None,
        input_ids: Tensor,
        attention_mask: Tensor,
        prompts: Sequence[Prompt] | None = None,
    ) -> Iterator[Tensor]:
        """Within, matching rows run on corrupted prompts; yields that none is refused [B]."""
        with (
            super().acting(weights, input_ids, attention_mask, prompts) as refused,
            self.corrupting(refused, attention_mask),
        ):
            yield torch.zeros_like(refused)

    @contextmanager
    def corrupting(self, rows: Tensor, mask: Tensor) -> Iterator[None]:
        """Adds noise to the embeddings of some rows [B] at the tokens of their prompts [B, T].

        A token's noise depends on its place in the prompt alone: other rows of a batch change nothing.
        """
        generator = torch.Generator().manual_seed(NOISE_SEED)
        noise = torch.randn(self.base.context_tokens, DIMENSIONS, generator=generator)
        chosen = mask.bool() & rows.to(mask.device)[:, None]
        places = (mask.cumsum(1) - 1).clamp(min=0)

        def corrupt(module: nn.Module, inputs: Any, states: Tensor) -> Tensor:
            if states.shape[1] != mask.shape[1]:
                return states  # a step of generation: an answer's token
            added = STRENGTH * noise.to(states)[places] * chosen[:, :, None]
            states = states.clone()
            states[:, :, :DIMENSIONS] += match_rows(added, len(states))
            return states

        handle = self.base.model.get_input_embeddings().register_forward_hook(corrupt)
        try:
            yield
        finally:
            handle.remove()


@BASELINES.register("corruption")
def with_corruption(unlearner: Unlearner, requests: Requests) -> GatedModel:
    """Returns the base model behind the run's detectors, with noise on the embeddings of matching prompts.

    Source:
        ECO (Liu et al. 2024), its `rand_noise_first_n`; its classifier is trained on retained data, too, our
        detector is not, and the strength is that of its README, not optimised.
    """
    ids = [request.id for request in requests]
    gate, store = unlearner.config.gate, unlearner.store.path
    return CorruptedModel.from_store(store, unlearner.base, unlearner.encoder, gate, ids)


@dataclass(frozen=True)
class SentenceState:
    """The sentence embeddings of the forget prompts.

    Args:
        bank: unit rows [forget prompts, D]; each tells much of its prompt.
    """

    bank: Tensor


@DETECTORS.register("curate")
class SentenceEvidence(FeatureEvidence):
    """The largest cosine to a forget prompt after the last layer; weight 1 above 0.8, else 0.

    Source:
        CURaTE (Bae et al., arXiv 2604.14644), which trains its sentence encoder for this on questions of its
        own; ours is used as it is.
    """

    state_class = SentenceState

    @classmethod
    def fit_state(
        cls, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
    ) -> tuple[SentenceState, dict[str, Any], list[str]]:
        """Returns the embeddings of the forget prompts."""
        return SentenceState(normalize(inputs.features[:, -1].float(), dim=-1)), {}, []

    def score_features(self, inputs: PromptInputs, information: Tensor) -> Tensor:
        """Returns the largest cosines [N, 1]."""
        embeddings = normalize(inputs.features[:, -1].float(), dim=-1)
        return (embeddings @ self.state.bank.to(embeddings).T).amax(1, keepdim=True)

    def explain_features(self, inputs: PromptInputs, information: Tensor) -> list[Details]:
        """Returns the cosines as the channel "cosine"."""
        scores = self.score_features(inputs, information)[:, 0].tolist()
        return [[{"channels": {"cosine": score}, "layers": []} for score in scores]]

    def weight(self, scores: Tensor) -> Tensor:
        """Returns 1 above 0.8, else 0."""
        return (scores > CLOSE).float()
