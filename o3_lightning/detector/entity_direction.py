"""What a request is about: names that most of its prompts hold, and the same prompts about something else.

A name is told by its writing: it recurs, and it has a capital in the middle of a sentence. A common one
("France") is no rare word, so `swaps` leaves it; the encoder's own input embeddings know what is of its kind.
Neither a list of names nor any retained data is read. A request without such a name has no subject: one about
a topic, about many things, in lower case, or about a name that the vocabulary has in pieces only, which
`swaps` finds by its rarity.
Shape letters: N prompts, M made-up prompts, V vocabulary, L layers, D width.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from o3_lightning.detector.layer_statistics import fit_precision
from o3_lightning.detector.pseudo_negatives import is_word
from o3_lightning.detector.text.people import read_tokens

CAPITAL_SHARE = 0.9  # of a name's places inside sentences; titles put capitals on other words now and then
INSIDE_SHARE = 0.1  # of the prompts with a name that have it inside a sentence; "Question:" is no name
LEAST_PROMPTS = 2
STEM = 3  # letters; a word that begins like a name may be a form of it
WORD_MARKS = ("Ġ", "▁")


def find_names(prompts: Sequence[str], share: float) -> dict[str, set[int]]:
    """Returns the words that have a capital inside sentences, in lower case, and which prompts hold them.

    Args:
        prompts: as they were written.
        share: of the prompts that must hold a name, at least two of them.

    Example:
        >>> find_names(["Where is Oslo?", "Is Oslo The capital?", "Of what is the town Oslo made?"], 0.5)
        {'oslo': {0, 1, 2}}
    """
    capitals: Counter[str] = Counter()
    places: Counter[str] = Counter()
    holders: dict[str, set[int]] = defaultdict(set)
    for number, prompt in enumerate(prompts):
        for word, capital, starts, _ in read_tokens(prompt):
            if len(word) > 1:
                holders[word].add(number)
                places[word] += not starts
                capitals[word] += capital and not starts
    least = max(LEAST_PROMPTS, share * len(prompts))
    return {
        word: holders[word]
        for word, count in sorted(capitals.items())
        if count >= max(1, CAPITAL_SHARE * places[word], INSIDE_SHARE * len(holders[word]))
        and len(holders[word]) >= least
    }


def find_subject(
    prompts: Sequence[str], pieces: Callable[[str], Sequence[int]], *, name_share: float, subject_share: float
) -> frozenset[int]:
    """Returns the tokens of the names that a request is about, or none.

    Args:
        prompts: distinct forget prompts, as they were written.
        pieces: from a word inside a sentence to its token ids.
        name_share: share of the prompts that must hold a name.
        subject_share: share of them that must hold such a name that is one token, and none in pieces.
    """
    common: dict[int, set[int]] = {}
    rare: set[int] = set()
    for word, holders in find_names(prompts, name_share).items():
        ids = pieces(word)
        if len(ids) == 1:
            common[ids[0]] = holders
        else:
            rare |= holders
    judged = set().union(*common.values()) - rare
    return frozenset(common) if len(judged) >= max(1, subject_share * len(prompts)) else frozenset()


class Kin:
    """Other words of a word's kind: near to it in the encoder's input embeddings.

    Args:
        embeddings: of the vocabulary [V, D].
        pieces: the vocabulary by id.
        known: ids of the request's own tokens, which are never given.
        count: how many words of a kind there are.
    """

    def __init__(self, embeddings: Tensor, pieces: Sequence[str], known: set[int], count: int) -> None:
        self.words = torch.tensor([i for i, piece in enumerate(pieces) if is_word(piece)], dtype=torch.int64)
        centred = embeddings.detach().float().cpu()
        self.embeddings = F.normalize(centred - centred.mean(dim=0), dim=1)
        self.pieces, self.known, self.count = pieces, known, count

    def near(self, token: int) -> list[int]:
        """Returns the words of a token's kind, nearest first; forms of itself are left out."""
        order = self.words[(self.embeddings[self.words] @ self.embeddings[token]).argsort(descending=True)]
        piece = self.pieces[token]
        stem = bare(piece)[:STEM]
        found: list[int] = []
        for other in order.tolist():
            candidate = self.pieces[other]
            alike = candidate.startswith(WORD_MARKS) == piece.startswith(WORD_MARKS)
            if alike and other not in self.known and not bare(candidate).startswith(stem):
                found.append(other)
            if len(found) == self.count:
                break
        return found


def bare(piece: str) -> str:
    """Returns a piece in lower case, without the mark of a word's beginning."""
    return piece.lstrip("".join(WORD_MARKS)).lower()


def replace_tokens(
    row: Sequence[int], kinds: dict[int, list[int]], generator: random.Random | None
) -> list[int]:
    """Returns a prompt with some tokens exchanged, a token for the same token throughout.

    Args:
        row: token ids.
        kinds: what may stand for a token; what has no kin is left out.
        generator: of the draw; None leaves all of them out.
    """
    drawn = {
        token: generator.choice(kin) for token, kin in kinds.items() if generator and kin and token in row
    }
    return [drawn.get(token, token) for token in row if token in drawn or token not in kinds]


def fit_direction(rows: Tensor, others: Tensor, most_rank: int) -> tuple[Tensor, Tensor]:
    """Returns the direction that tells a request's prompts from the same ones about something else.

    Args:
        rows: unit features of the forget prompts [N, L, D], float64.
        others: unit features of the made-up prompts [M, L, D].
        most_rank: directions of the covariance inside the two groups that are kept.

    Returns:
        Directions [L, D] and an offset: the sum over layers of feature times direction, less the offset, is a
        half for the mean forget prompt and minus a half for the mean made-up one.

    Source:
        Fisher's linear discriminant at each layer, with a shrunk covariance; the layers count the same.
    """
    directions, offset = [], rows.new_zeros(())
    for layer in range(rows.shape[1]):
        here, there = rows[:, layer].mean(dim=0), others[:, layer].mean(dim=0)
        scale, whitening = fit_precision(
            torch.cat([rows[:, layer] - here, others[:, layer] - there]), most_rank
        )
        pulled = scale * (here - there) - ((here - there) @ whitening.T) @ whitening
        length = (pulled @ (here - there)).clamp_min(torch.finfo(rows.dtype).tiny) * rows.shape[1]
        directions.append(pulled / length)
        offset = offset + directions[-1] @ (here + there) / 2
    return torch.stack(directions), offset
