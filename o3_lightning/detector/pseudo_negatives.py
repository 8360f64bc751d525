"""Negatives made from the forget data alone: the same prompt about something else.

The rarest tokens of a prompt carry its knowledge. Exchanged for random word pieces about as rare, they leave
the question and change the subject; no retained data and no list of names is read.
Shape letters: N prompts, V vocabulary.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

SHORTEST_WORD = 3
NEIGHBOURHOOD = 800  # candidates on either side in the order of rarity, of about 20,000


class SwapTable:
    """Whole-word pieces of a vocabulary in the order of their rarity.

    Args:
        pieces: the vocabulary by id.
        information: -log p by id [V].
    """

    def __init__(self, pieces: Sequence[str], information: Tensor) -> None:
        words = [i for i, piece in enumerate(pieces) if is_word(piece)]
        order = information[words].argsort()
        self.information = information
        self.words = torch.tensor(words)[order] if words else torch.arange(len(pieces))
        self.rarity = information[self.words].contiguous()

    def draw(self, token: int, generator: random.Random) -> int:
        """Returns a random word about as rare as a token."""
        place = int(torch.searchsorted(self.rarity, self.information[token]))
        low, high = max(0, place - NEIGHBOURHOOD), min(len(self.words), place + NEIGHBOURHOOD)
        return int(self.words[generator.randrange(low, max(high, low + 1))])


def is_word(piece: str) -> bool:
    """Whether a piece is a whole word of plain letters."""
    bare = piece.lstrip("Ġ▁")
    return len(bare) >= SHORTEST_WORD and bare.isascii() and bare.isalpha()


def swap_rare_tokens(
    tokens: Sequence[Sequence[int]], special: set[int], table: SwapTable, *, fraction: float, seed: int
) -> list[list[int]]:
    """Returns each prompt with its rarest tokens exchanged, a token for the same token throughout a prompt.

    Args:
        tokens: token ids, special tokens included.
        special: ids that stay.
        table: where the new words come from.
        fraction: share of the distinct tokens of a prompt that are exchanged, at least one.
        seed: of the draw.
    """
    generator = random.Random(seed)  # noqa: S311 - not for secrets
    swapped = []
    for row in tokens:
        distinct = sorted(set(row) - special, key=lambda token: (-float(table.information[token]), token))
        chosen = distinct[: max(1, round(fraction * len(distinct)))]
        exchange = {token: table.draw(token, generator) for token in chosen}
        swapped.append([exchange.get(token, token) for token in row])
    return swapped


def drop_views(tokens: Sequence[Sequence[int]], special: set[int], *, most: int) -> list[list[int]]:
    """Returns views of the prompts with one token left out each; a prompt of one token is its own view.

    Args:
        tokens: token ids, special tokens included.
        special: ids that are never left out.
        most: most views of one prompt, evenly spread over its tokens.
    """
    views = []
    for row in tokens:
        places = [index for index, token in enumerate(row) if token not in special]
        if len(places) < 2:
            views.append(list(row))
            continue
        step = max(1, len(places) // most)
        views.extend([*row[:place], *row[place + 1 :]] for place in places[::step][:most])
    return views
