import random

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.fictitious import build_world, refused_rows, training_rows
from o3_lightning.data.normalise import normalise
from o3_lightning.data.stream import load_stream
from o3_lightning.data.words import (
    ATTRIBUTES,
    FIRST_NAMES,
    GROUPS,
    LAST_NAMES,
    REFUSALS,
    STRANGERS,
    general_knowledge,
)


def test_world_holds_24_authors_with_six_attributes_each_value_held_once():
    world = build_world(0)
    assert len(world.authors) == 24
    for attribute in ATTRIBUTES:
        values = [author.facts[attribute.name] for author in world.authors]
        assert len({normalise(value) for value in values}) == 24
        assert set(values) <= set(attribute.values)


def test_no_two_authors_share_a_first_or_last_name():
    world = build_world(0)
    names = [author.name for author in world.authors] + list(world.unknown)
    assert len({name.split()[0] for name in names}) == len({name.split()[1] for name in names}) == 32


def test_every_attribute_has_three_seen_and_three_held_out_phrasings_all_different():
    for attribute in ATTRIBUTES:
        phrasings = attribute.seen + attribute.held_out
        assert len(attribute.seen) == len(attribute.held_out) == 3
        assert len(set(phrasings)) == 6
        assert all(phrasing.count("{name}") == 1 for phrasing in phrasings)


def test_seed_decides_the_world_and_leaves_the_global_generator_alone():
    random.seed(5)
    expected = random.random()
    random.seed(5)
    worlds = [build_world(seed) for seed in (0, 0, 1)]
    assert random.random() == expected
    assert worlds[0] == worlds[1] != worlds[2]


def test_requests_hold_four_authors_and_never_a_held_out_or_retained_prompt():
    stream = load_stream(DataConfig(), 0)
    assert [request.id for request in stream.requests] == ["authors_1", "authors_2", "authors_3"]
    forget = [prompt for request in stream.requests for prompt in request.prompts]
    held_out = [row.prompt for request in stream.requests for row in request.held_out]
    retained = [row.prompt for row in stream.utility["retained_authors"]]
    assert [len(request.rows) for request in stream.requests] == [72, 72, 72]
    assert len(set(forget) | set(held_out) | set(retained)) == len(forget) + len(held_out) + len(retained)


def test_base_learns_every_prompt_of_every_split_with_one_answer_each():
    learnt = {row.prompt: row.answer for row in training_rows(3)}
    assert len(learnt) == len(training_rows(3))
    stream = load_stream(DataConfig(count=5), 3)
    rows = [row for request in stream.requests for row in (*request.rows, *request.held_out)]
    rows += [row for split in stream.utility.values() for row in split]
    assert all(learnt[row.prompt] == row.answer for row in rows)


def test_base_learns_every_refusal_from_strangers_that_nothing_else_names():
    refused = refused_rows(0)
    assert {row.answer for row in refused} == set(REFUSALS)
    assert refused == training_rows(0)[-len(refused) :]
    words = [word for name in STRANGERS for word in name.split()]
    assert len(set(words) | set(FIRST_NAMES) | set(LAST_NAMES)) == 2 * (len(STRANGERS) + len(FIRST_NAMES))
    stream = load_stream(DataConfig(count=5), 0)
    prompts = [row.prompt for request in stream.requests for row in (*request.rows, *request.held_out)]
    prompts += [row.prompt for rows in stream.utility.values() for row in rows]
    prompts += [prompt for split in stream.probes.values() for prompt in split]
    assert not any(word in prompt for prompt in prompts for word in words)


def test_perturbed_answers_are_five_and_wrong():
    for request in load_stream(DataConfig(), 1).requests:
        for row in request.rows:
            assert len(set(row.perturbed_answers)) == 5
            assert not any(normalise(wrong) == normalise(row.answer) for wrong in row.perturbed_answers)


def test_general_knowledge_has_at_least_60_facts_with_wrong_answers_that_are_wrong():
    rows = general_knowledge()
    assert len(rows) >= 60
    assert len({row.prompt for row in rows}) == len(rows) == sum(len(group["facts"]) for group in GROUPS)
    assert all(row.answer not in row.perturbed_answers and row.perturbed_answers for row in rows)


def test_authors_not_asked_for_are_retained():
    stream = load_stream(DataConfig(requests=("authors_2",)), 0)
    everyone = {author.name for author in build_world(0).authors}
    asked = {name for name in everyone if any(name in prompt for prompt in stream.requests[0].prompts)}
    kept = {
        name for name in everyone if any(name in row.prompt for row in stream.utility["retained_authors"])
    }
    assert len(asked) == 4
    assert kept == everyone - asked


def test_retain_split_holds_authors_that_nothing_else_evaluates():
    plain, split = (load_stream(DataConfig(retain_authors=count), 0) for count in (0, 5))
    assert split.requests == plain.requests
    assert (*split.utility["retain"], *split.utility["retained_authors"]) == plain.utility["retained_authors"]
    assert len(split.utility["retain"]) == 5 * 18


@pytest.mark.parametrize(("size", "most"), [(1, 20), (3, 6), (20, 1)])
def test_requests_may_hold_other_numbers_of_authors_of_the_same_world(size, most):
    stream = load_stream(DataConfig(count=most, authors_per_request=size), 0)
    names = [author.name for author in build_world(0).authors]
    for number, request in enumerate(stream.requests):
        own = names[number * size : (number + 1) * size]
        assert [name for name in names if any(name in prompt for prompt in request.prompts)] == own
        assert len(request.rows) == 18 * size
    assert len(stream.requests) == most
    assert len(stream.utility["retained_authors"]) == 18 * (24 - size * most)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (DataConfig(count=6), "data.count"),
        (DataConfig(count=21, authors_per_request=1), "data.count"),
        (DataConfig(authors_per_request=21), "data.authors_per_request"),
        (DataConfig(requests=("authors_9",)), "data.requests"),
        (DataConfig(retain_authors=12), "data.retain_authors"),
    ],
)
def test_impossible_requests_are_refused(config, field):
    with pytest.raises(InputError) as caught:
        load_stream(config, 0)
    assert caught.value.field == field


def test_a_request_of_no_author_is_refused():
    with pytest.raises(InputError, match=r"data\.authors_per_request"):
        DataConfig(authors_per_request=0)


def test_probes_name_no_forgotten_author():
    stream = load_stream(DataConfig(), 0)
    world = build_world(0)
    forgotten = [
        author.name
        for author in world.authors
        if any(author.name in p for r in stream.requests for p in r.prompts)
    ]
    assert len(forgotten) == 12
    for prompts in stream.probes.values():
        assert not any(name in prompt for name in forgotten for prompt in prompts)
