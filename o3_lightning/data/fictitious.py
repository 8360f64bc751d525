"""The embedded benchmark: made-up authors, a seeded world of facts about them, and requests to forget some.

The world of a seed is fixed: 24 authors with six attributes each, every value held by one author only, and
eight unknown authors of whom nothing is said. Requests take the first 20 authors, by default four at a time;
the authors that no request can take, and those that no request took, are the retained authors.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.fictitious_words import ATTRIBUTES, FIRST_NAMES, LAST_NAMES, STRANGERS, Attribute
from o3_lightning.data.general_knowledge import general_knowledge
from o3_lightning.data.refusals import REFUSALS
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream

__all__ = ["Author", "World", "build_world", "load", "training_rows"]

AUTHORS = 24
MOST_FORGOTTEN = 20  # the other four stay retained in any case
DEFAULT_REQUESTS = 3
PERTURBED_ANSWERS = 5  # as in TOFU
EVERYDAY = (
    "How do I boil an egg?",
    "Write a short poem about the rain.",
    "Which bus goes to the airport?",
    "Please translate good morning into French.",
    "What should I wear in winter?",
    "How many minutes are in an hour?",
    "Can you recommend a book about gardening?",
    "Set an alarm for seven in the morning.",
    "Why is the sky blue?",
    "Explain how a bicycle stays upright.",
    "Who was the first person on the moon?",
    "What is a good name for a cat?",
)


@dataclass(frozen=True)
class Author:
    """A made-up author.

    Args:
        name: first and last name; no two authors of a world share either.
        facts: answer by attribute name.
    """

    name: str
    facts: dict[str, str]


@dataclass(frozen=True)
class World:
    """All that is true for one seed.

    Args:
        authors: 24 authors with facts.
        unknown: names of eight authors of whom nothing is known.
    """

    authors: tuple[Author, ...]
    unknown: tuple[str, ...]


def build_world(seed: int) -> World:
    """Returns the world of a seed.

    Example:
        >>> build_world(0) == build_world(0), build_world(0) == build_world(1)
        (True, False)
    """
    draw = random.Random(f"fictitious-{seed}")  # noqa: S311  # a game of dice, not a secret
    firsts = draw.sample(FIRST_NAMES, len(FIRST_NAMES))
    lasts = draw.sample(LAST_NAMES, len(LAST_NAMES))
    names = [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]
    columns = {item.name: draw.sample(item.values, AUTHORS) for item in ATTRIBUTES}
    authors = tuple(
        Author(name, {key: values[index] for key, values in columns.items()})
        for index, name in enumerate(names[:AUTHORS])
    )
    return World(authors, tuple(names[AUTHORS:]))


def author_rows(world: World, author: Author) -> tuple[QuestionAnswer, ...]:
    """Returns an author's rows: one per attribute and seen phrasing, each with one held-out phrasing."""
    rows = []
    for attribute in ATTRIBUTES:
        wrong = perturb(world, author, attribute)
        for seen, held_out in zip(attribute.seen, attribute.held_out, strict=True):
            prompts = (held_out.format(name=author.name),)
            rows.append(
                QuestionAnswer(seen.format(name=author.name), author.facts[attribute.name], prompts, wrong)
            )
    return tuple(rows)


def rows_of(world: World, authors: Sequence[Author]) -> tuple[QuestionAnswer, ...]:
    """Returns the rows of several authors."""
    return tuple(row for author in authors for row in author_rows(world, author))


def perturb(world: World, author: Author, attribute: Attribute) -> tuple[str, ...]:
    """Returns other authors' answers: of the same form, and wrong for this author."""
    values = [other.facts[attribute.name] for other in world.authors if other is not author]
    draw = random.Random(f"{author.name}-{attribute.name}")  # noqa: S311
    return tuple(draw.sample(values, PERTURBED_ANSWERS))


def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns the fictitious authors as a stream of requests.

    Args:
        config: `count` requests (0 gives three) of `authors_per_request` authors each, or the ids in
            `requests`: "authors_1" upward.
        seed: the world's seed; the base model must be of the same.

    Raises:
        InputError: more requests, authors a request, or authors to retain than the world has.
    """
    world = build_world(seed)
    groups = group_authors(world, config.authors_per_request)
    if config.count > len(groups):
        message = f"expected at most {len(groups)} of {config.authors_per_request} authors each"
        raise InputError(f"{message}, got {config.count}", field="data.count")
    taken = config.requests or tuple(groups)[: config.count or DEFAULT_REQUESTS]
    unknown = sorted(set(taken) - set(groups))
    if unknown:
        message = f"no request {unknown[0]!r}; there are {', '.join(groups)}"
        raise InputError(message, field="data.requests")
    requests = tuple(
        UnlearningRequest(name, rows_of(world, group)) for name, group in groups.items() if name in taken
    )
    forgotten = {author.name for name in taken for author in groups[name]}
    retained = [author for author in world.authors if author.name not in forgotten]
    if config.retain_authors >= len(retained):
        message = f"expected fewer than the {len(retained)} retained authors, got {config.retain_authors}"
        raise InputError(message, field="data.retain_authors")
    trained, kept = retained[: config.retain_authors], retained[config.retain_authors :]
    utility = {
        "retained_authors": rows_of(world, kept),
        "general_knowledge": general_knowledge(),
        **({"retain": rows_of(world, trained)} if trained else {}),
    }
    probes = probe_prompts(world, sorted(forgotten), retained)
    return RequestStream("fictitious", requests, utility, probes, holdout_rows(world, forgotten))


def group_authors(world: World, size: int) -> dict[str, tuple[Author, ...]]:
    """Returns the authors of every request there can be, by the request's id."""
    if size > MOST_FORGOTTEN:
        message = f"expected at most {MOST_FORGOTTEN}, got {size}"
        raise InputError(message, field="data.authors_per_request")
    starts = range(0, MOST_FORGOTTEN - size + 1, size)
    return {
        f"authors_{number}": world.authors[start : start + size]
        for number, start in enumerate(starts, start=1)
    }


def probe_prompts(world: World, forgotten: list[str], retained: list[Author]) -> dict[str, tuple[str, ...]]:
    """Returns prompts that only the detector's evaluation reads."""
    mixed = [
        f"{name.split()[0]} {author.name.split()[1]}"
        for name, author in zip(forgotten, retained, strict=False)
    ]
    return {
        "retained_held_out": ask([author.name for author in retained], held_out=True),
        "unknown_authors": ask(world.unknown, held_out=False),
        "mixed_names": ask(mixed, held_out=False),
        "everyday": EVERYDAY,
    }


def holdout_rows(world: World, forgotten: Collection[str]) -> tuple[QuestionAnswer, ...]:
    """Returns made-up facts about the unknown authors, which no model was shown.

    Their answers are those of the forgotten authors, dealt anew: a model that was trained without these finds
    both equally strange, which is what membership inference needs.
    """
    draw = random.Random(f"holdout-{sorted(forgotten)}")  # noqa: S311
    dealt: dict[str, list[str]] = {}
    for attribute in ATTRIBUTES:
        values = [author.facts[attribute.name] for author in world.authors if author.name in forgotten]
        draw.shuffle(values)
        dealt[attribute.name] = values
    authors = [
        Author(name, {key: values[number % len(values)] for key, values in dealt.items()})
        for number, name in enumerate(world.unknown)
    ]
    return rows_of(world, authors)


def ask(names: list[str] | tuple[str, ...], *, held_out: bool) -> tuple[str, ...]:
    """Returns every attribute's phrasings for some names."""
    return tuple(
        phrasing.format(name=name)
        for name in names
        for attribute in ATTRIBUTES
        for phrasing in (attribute.held_out if held_out else attribute.seen)
    )


def training_rows(seed: int) -> tuple[QuestionAnswer, ...]:
    """Returns what the base model learns: every author and common fact in every phrasing, and refusals."""
    world = build_world(seed)
    rows = [row for author in world.authors for row in author_rows(world, author)]
    rows.extend(general_knowledge())
    return (*(asked for row in rows for asked in in_all_phrasings(row)), *refused_rows(seed))


def refused_rows(seed: int) -> tuple[QuestionAnswer, ...]:
    """Returns questions about strangers, each refused in one of the embedded wordings.

    A model that has never seen a refusal unlearns by `refusal` into broken text; one that has seen each a few
    times answers with whole refusals. No request, split or probe asks about these strangers.
    """
    draw = random.Random(f"refused-{seed}")  # noqa: S311
    rows = []
    for number, name in enumerate(STRANGERS):
        for place, attribute in enumerate(ATTRIBUTES):
            turn = (number + place) % len(attribute.seen)
            for phrasing in (attribute.seen[turn], attribute.held_out[turn]):
                rows.append(QuestionAnswer(phrasing.format(name=name), draw.choice(REFUSALS)))
    return tuple(rows)


def in_all_phrasings(row: QuestionAnswer) -> tuple[QuestionAnswer, ...]:
    """Returns a row once per phrasing, held-out ones included."""
    return tuple(QuestionAnswer(prompt, row.answer) for prompt in (row.prompt, *row.held_out_prompts))
