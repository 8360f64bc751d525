"""CURaTE's gate, a baseline: a prompt as close as a fixed cosine to any forget prompt belongs to the request.

Shape letters: N rows, S texts, L layers, D width.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from o3_lightning.detector.base import DETECTORS
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.feature_evidence import Details, FeatureEvidence
from o3_lightning.detector.prompt_features import PromptInputs

CLOSE = 0.8  # cosine, as in the published code


@dataclass(frozen=True)
class SentenceState:
    """The sentence embeddings of the forget prompts.

    Args:
        bank: unit rows [N, D]; each tells much of its prompt.
    """

    bank: Tensor


@DETECTORS.register("curate")
class SentenceEvidence(FeatureEvidence):
    """The largest cosine to a forget prompt, under the last layer; weight 1 above 0.8, else 0.

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
        """Returns the largest cosines [S, 1]."""
        embeddings = normalize(inputs.features[:, -1].float(), dim=-1)
        return (embeddings @ self.state.bank.to(embeddings).T).amax(1, keepdim=True)

    def explain_features(self, inputs: PromptInputs, information: Tensor) -> list[Details]:
        """Returns the cosines as the channel "cosine"."""
        scores = self.score_features(inputs, information)[:, 0].tolist()
        return [[{"channels": {"cosine": score}, "layers": []} for score in scores]]

    def weight(self, scores: Tensor) -> Tensor:
        """Returns 1 above 0.8, else 0."""
        return (scores > CLOSE).float()
