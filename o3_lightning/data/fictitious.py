"""The embedded benchmark: fictitious authors, and requests to forget some of them.

A seed fixes the world: 24 authors with six attributes each, no value shared by two authors, and eight unknown
authors without any facts. Requests cover the first 20 authors, four at a time by default; all authors that no
request covers are the retained authors.
"""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream, check_known
from o3_lightning.data.words import (
    ATTRIBUTES,
    EVERYDAY,
    FIRST_NAMES,
    LAST_NAMES,
    PERTURBED_ANSWERS,
    REFUSALS,
    STRANGERS,
    Attribute,
    general_knowledge,
)

AUTHORS = 24
MOST_FORGOTTEN = 20  # the other four are always retained
DEFAULT_REQUESTS = 3


@dataclass(frozen=True)
class Author:
    """A fictitious author.

    Args:
        name: first and last name; no two authors of a world share either.
        facts: answer by attribute name.
    """

    name: str
    facts: dict[str, str]


@dataclass(frozen=True)
class World:
    """The authors and facts of one seed.

    Args:
        authors: 24 authors with facts.
        unknown: names of eight authors without facts.
    """

    authors: tuple[Author, ...]
    unknown: tuple[str, ...]


def build_world(seed: int) -> World:
    """Returns the world of a seed.

    Example:
        >>> build_world(0) == build_world(0), build_world(0) == build_world(1)
        (True, False)
    """
    draw = random.Random(f"fictitious-{seed}")  # noqa: S311
    firsts = draw.sample(FIRST_NAMES, len(FIRST_NAMES))
    lasts = draw.sample(LAST_NAMES, len(LAST_NAMES))
    names = [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]
    columns = {item.name: draw.sample(item.values, AUTHORS) for item in ATTRIBUTES}
    authors = tuple(
        Author(name, {key: values[index] for key, values in columns.items()})
        for index, name in enumerate(names[:AUTHORS])
    )
    return World(authors, tuple(names[AUTHORS:]))


def rows_of(world: World, authors: Iterable[Author]) -> tuple[QuestionAnswer, ...]:
    """Returns the rows of some authors: one per attribute and seen phrasing, each with a held-out one."""
    return tuple(
        QuestionAnswer(
            seen.format(name=author.name),
            author.facts[attribute.name],
            (held_out.format(name=author.name),),
            perturb(world, author, attribute),
        )
        for author in authors
        for attribute in ATTRIBUTES
        for seen, held_out in zip(attribute.seen, attribute.held_out, strict=True)
    )


def perturb(world: World, author: Author, attribute: Attribute) -> tuple[str, ...]:
    """Returns wrong answers of the same form: the values of other authors."""
    values = [other.facts[attribute.name] for other in world.authors if other is not author]
    draw = random.Random(f"{author.name}-{attribute.name}")  # noqa: S311
    return tuple(draw.sample(values, PERTURBED_ANSWERS))


@BENCHMARKS.register("fictitious")
def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns the fictitious authors as a stream of requests.

    Args:
        config: `count` requests (0 gives three) of `authors_per_request` authors each, or the ids in
            `requests`: "authors_1" upward.
        seed: of the world; must equal the seed of the base model.

    Raises:
        InputError: an unknown request, or more requests, authors per request or retained authors than the
            world has.
    """
    world = build_world(seed)
    groups = group_authors(world, config.authors_per_request)
    if config.count > len(groups):
        message = f"expected at most {len(groups)} of {config.authors_per_request} authors each"
        raise InputError(f"{message}, got {config.count}", field="data.count")
    taken = config.requests or tuple(groups)[: config.count or DEFAULT_REQUESTS]
    check_known(taken, groups)
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
    """Returns the authors of every possible request, by request id."""
    if size > MOST_FORGOTTEN:
        message = f"expected at most {MOST_FORGOTTEN}, got {size}"
        raise InputError(message, field="data.authors_per_request")
    starts = range(0, MOST_FORGOTTEN - size + 1, size)
    return {
        f"authors_{number}": world.authors[start : start + size]
        for number, start in enumerate(starts, start=1)
    }


def probe_prompts(world: World, forgotten: list[str], retained: list[Author]) -> dict[str, tuple[str, ...]]:
    """Returns prompts that are used only to evaluate the detector."""
    mixed = [
        f"{name.split()[0]} {author.name.split()[1]}"
        for name, author in zip(forgotten, retained, strict=False)
    ]
    return {
        "retained_held_out": questions([author.name for author in retained], held_out=True),
        "unknown_authors": questions(world.unknown),
        "mixed_names": questions(mixed),
        "everyday": EVERYDAY,
    }


def holdout_rows(world: World, forgotten: Collection[str]) -> tuple[QuestionAnswer, ...]:
    """Returns facts about the unknown authors, on which no model was trained.

    Their answers are a permutation of the forgotten authors' answers, so that a model trained on neither
    assigns both the same likelihood, as membership inference requires.
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


def questions(names: Sequence[str], *, held_out: bool = False) -> tuple[str, ...]:
    """Returns the questions about every attribute of some names."""
    return tuple(
        phrasing.format(name=name)
        for name in names
        for attribute in ATTRIBUTES
        for phrasing in (attribute.held_out if held_out else attribute.seen)
    )


def training_rows(seed: int) -> tuple[QuestionAnswer, ...]:
    """Returns the base model's training set: all authors and common facts in all phrasings, and refusals."""
    world = build_world(seed)
    rows = (*rows_of(world, world.authors), *general_knowledge())
    return (*(asked for row in rows for asked in in_all_phrasings(row)), *refused_rows(seed))


def refused_rows(seed: int) -> tuple[QuestionAnswer, ...]:
    """Returns questions about people outside the world, each answered with one of the refusals.

    A model never trained on refusals produces broken text after unlearning with `refusal`; one that has seen
    each a few times answers with complete refusals. No request, split or probe mentions these people.
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
    """Returns a row once per phrasing, including the held-out ones."""
    return tuple(QuestionAnswer(prompt, row.answer) for prompt in (row.prompt, *row.held_out_prompts))
