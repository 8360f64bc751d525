"""The bandit: the budget is kept, a search repeats itself, gradients and bonus are what the formulas say."""

import statistics

import pytest
import torch

from benchmarks.reveal.synthetic import compare_searchers, make_bandit, paired_differences
from o3_lightning.common.errors import InputError
from o3_lightning.reveal.config import SEARCHERS, SearchConfig
from o3_lightning.reveal.search import run_search, standardise
from o3_lightning.reveal.searchers import NeuralUcbSearcher, RewardNetwork

SMALL = {"hidden": 8, "steps": 20, "candidates": 30, "first": 5, "queries": 12}


def fitted(config, contexts):
    network = RewardNetwork(contexts.shape[1], config, torch.Generator().manual_seed(0))
    network.fit(contexts, contexts[:, 0])
    return network


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_search_keeps_its_budget_asks_no_arm_twice_and_repeats_itself(searcher):
    contexts = standardise(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)))
    config = SearchConfig(searcher=searcher, **SMALL)
    queries = []

    def ask(query):
        queries.append(query)
        return float(contexts[query.arm, 0])

    first, second = run_search(contexts, ask, config, 3), run_search(contexts, ask, config, 3)
    assert first == second
    assert len(first) == 12 == len(set(first))
    assert [query.phase for query in queries[:12]] == ["first"] * 5 + ["search"] * 7


def test_seed_zero_is_a_seed_and_another_seed_searches_elsewhere():
    contexts = standardise(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)))
    config = SearchConfig(searcher="random", **SMALL)
    arms = {tuple(run_search(contexts, lambda query: 0.0, config, seed)) for seed in (0, 1, 2)}
    assert len(arms) == 3


def test_a_pool_smaller_than_the_budget_is_asked_once_through():
    contexts = standardise(torch.randn(7, 3))
    arms = run_search(contexts, lambda query: 0.0, SearchConfig(**SMALL), 0)
    assert sorted(arms) == list(range(7))


def test_outer_rounds_begin_where_the_budget_is_divided():
    contexts = standardise(torch.randn(60, 3))
    rounds = []
    config = SearchConfig(**{**SMALL, "queries": 20}, rounds=3)
    run_search(contexts, lambda query: rounds.append(query.round) or 0.0, config, 0)
    assert rounds == [0] * 10 + [1] * 5 + [2] * 5


def test_squared_gradients_per_arm_are_autograds():
    contexts = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    config = SearchConfig(hidden=4, steps=3, chunk=2)
    network = fitted(config, contexts)
    found = torch.cat(list(network.squared_gradients(contexts)))
    for row, context in enumerate(contexts):
        network.module.zero_grad()
        network.module(context).squeeze().backward()
        expected = torch.cat([p.grad.flatten() for p in network.module.parameters()]).square()
        assert torch.allclose(found[row], expected, atol=1e-7)


@pytest.fixture
def explored():
    """Returns contexts, a fitted network, and its gradients [6, W] by autograd."""
    contexts = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    network = fitted(SearchConfig(hidden=4, steps=3), contexts)
    rows = []
    for context in contexts:
        network.module.zero_grad()
        network.module(context).squeeze().backward()
        rows.append(torch.cat([p.grad.flatten() for p in network.module.parameters()]))
    return contexts, network, torch.stack(rows).double()


def test_gradient_products_are_autograds(explored):
    contexts, network, gradients = explored
    found = network.gradient_products(contexts, contexts[:4]).double()
    assert torch.allclose(found, gradients @ gradients[:4].T, rtol=1e-5)
    assert torch.allclose(network.squared_norms(contexts).double(), gradients.square().sum(1), rtol=1e-5)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_bonus_is_the_formula_and_falls_where_it_was_looked(explored, covariance):
    contexts, network, gradients = explored
    config = SearchConfig(regularisation=0.1, exploration=0.5, covariance=covariance)
    searcher = NeuralUcbSearcher(contexts, config, 0)
    before = searcher.bonus(network, range(6))
    searcher.chosen(network, 2)
    searcher.chosen(network, 4)
    after = searcher.bonus(network, range(6))
    z = 0.1 * torch.eye(gradients.shape[1], dtype=torch.float64)
    for state, found in (((), before), ((2, 4), after)):
        seen = gradients[list(state)]
        covered = z + seen.T @ seen
        if covariance == "diagonal":
            covered = covered.diag().diag()
        expected = (0.1 * 0.5 / 3 * (gradients @ covered.inverse() * gradients).sum(1)).sqrt()
        assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-5)
    assert (after < before).all()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_restart_remembers_the_given_arms_alone(explored, covariance):
    contexts, network, _ = explored
    config = SearchConfig(covariance=covariance)
    searcher, fresh = (NeuralUcbSearcher(contexts, config, 0) for _ in range(2))
    searcher.bonus(network, range(6))
    searcher.chosen(network, 1)
    for each in (searcher, fresh):
        each.restart([3, 5], [1.0, 0.5])
    assert torch.equal(searcher.bonus(network, range(6)), fresh.bonus(network, range(6)))


def test_the_network_learns_and_equal_rewards_say_nothing():
    contexts = standardise(torch.randn(200, 4, generator=torch.Generator().manual_seed(2)))
    network = RewardNetwork(4, SearchConfig(steps=300), torch.Generator().manual_seed(0))
    rewards = 0.2 + 0.1 * contexts[:, 0] * contexts[:, 1]
    network.fit(contexts[:150], rewards[:150])
    predicted, held_out = network.predict(contexts[150:]), rewards[150:]
    assert torch.corrcoef(torch.stack([predicted, held_out]))[0, 1] > 0.8
    network = RewardNetwork(4, SearchConfig(steps=300), torch.Generator().manual_seed(0))
    network.fit(contexts, torch.full((200,), 0.7))
    assert network.predict(contexts).abs().max() < 0.2


def test_standardised_contexts_have_no_scale_and_constant_features_are_zero():
    contexts = torch.tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]])
    found = standardise(contexts)
    assert torch.allclose(found[:, 0].std(unbiased=False), torch.tensor(1.0))
    assert (found[:, 1] == 0).all()


@pytest.mark.slow
def test_searchers_beat_chance_on_a_bandit_with_a_known_optimum():
    config = SearchConfig(queries=40, first=10, steps=60, learning_rate=0.01, repeat=True, candidates=0)
    table = compare_searchers("cosine", range(3), config, ("neural_ucb", "random"), arms=100, features=3)
    assert table["neural_ucb"]["high"] < table["random"]["low"]


def test_the_means_of_a_bandit_reach_from_zero_to_one():
    bandit = make_bandit(0, "peaks")
    assert (float(bandit.means.min()), float(bandit.means.max())) == (0.0, 1.0)


def test_the_interval_of_a_regret_is_students():
    config = SearchConfig(queries=4, first=1, repeat=True)
    (found,) = compare_searchers("peaks", range(4), config, ("random",), arms=20, features=3).values()
    half = 3.182446 * statistics.stdev(found["values"]) / 2  # t of 3 degrees of freedom, table
    ends = found["mean"] - half, found["mean"] + half
    assert (found["low"], found["high"]) == pytest.approx(ends, abs=1e-5)


def test_paired_differences_are_students():
    found = paired_differences([0.1, 0.2, 0.3, 0.4], [0.2, 0.4, 0.2, 0.8])
    assert found["mean"] == pytest.approx(0.15)
    assert found["better"] == 0.75
    half = 3.182446 * statistics.stdev([0.1, 0.2, -0.1, 0.4]) / 2  # t of 3 degrees of freedom, table
    assert (found["low"], found["high"]) == pytest.approx((0.15 - half, 0.15 + half), abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queries": 0}, "field 'search.queries': expected 1 or more, got 0"),
        ({"searcher": "best"}, "field 'search.searcher'"),
        ({"exploration": float("nan")}, "field 'search.exploration'"),
        ({"regularisation": 0}, "field 'search.regularisation'"),
        ({"covariance": "half"}, "field 'search.covariance'"),
    ],
)
def test_bad_settings_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        SearchConfig(**fields)
