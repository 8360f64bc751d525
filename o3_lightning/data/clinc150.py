"""CLINC150 by domain: an utterance is the prompt, its intent the answer, a domain one request."""

from __future__ import annotations

from collections.abc import Sequence

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.sources import HubFile, Record, load_records, try_records
from o3_lightning.data.stream import RequestStream

__all__ = ["load"]

FIELDS = ("text", "intent", "domain")
O3_ORDER = ("work", "travel", "home")  # the domains that O3 unlearns, in its order
FEWEST_KEPT = 1  # domains that stay retained
WRONG_INTENTS = 5  # as many as TOFU has perturbed answers


def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns one request per domain; its test utterances are the probes, other domains the utility.

    O3's domains come first where they are there, then the others by name; the last one always stays.
    Name domains in `data.requests` to choose them.

    Args:
        config: says which domains and where local files lie.
        seed: not used; nothing is drawn.

    Raises:
        InputError: a file is missing or malformed, or no domain would stay.

    Source: Larson et al. 2019; split by domain as O3 (Gao et al. 2025) does. The intents' domains are only
        in the local form, so this benchmark is not read from the Hub.
    """
    train = load_records(config, "clinc150/train.jsonl", FIELDS)
    test = load_records(config, "clinc150/test.jsonl", FIELDS)
    found = {record.text("domain") for record in train}
    order = [name for name in O3_ORDER if name in found] + sorted(found - set(O3_ORDER))
    forgotten = chosen_domains(config, order)
    intents = {name: intents_of(train, name) for name in order}
    requests = tuple(UnlearningRequest(name, rows(train, name, intents[name])) for name in forgotten)
    kept = [name for name in order if name not in forgotten]
    if not kept:
        raise InputError("expected at least one domain that stays", field="data.requests")
    utility = {"other_domains": tuple(row for name in kept for row in rows(test, name, intents[name]))}
    utility.update(sentence_pairs(config))
    probes = {f"test_{name}": tuple(row.prompt for row in rows(test, name, ())) for name in order}
    probes = {name: prompts for name, prompts in probes.items() if prompts}
    return RequestStream("clinc150", requests, utility, probes)


def chosen_domains(config: DataConfig, order: Sequence[str]) -> list[str]:
    """Returns the domains to forget, in order."""
    unknown = [name for name in config.requests if name not in order]
    if unknown:
        message = f"no domain {unknown[0]!r}; there are {', '.join(order)}"
        raise InputError(message, field="data.requests")
    if config.requests:
        return list(config.requests)
    most = len(order) - FEWEST_KEPT
    wanted = config.count or len([name for name in O3_ORDER if name in order]) or len(O3_ORDER)
    return list(order[: min(wanted, most)])


def intents_of(records: Sequence[Record], domain: str) -> tuple[str, ...]:
    """Returns a domain's intents, in order of their names."""
    return tuple(sorted({spoken(record) for record in records if record.values["domain"] == domain}))


def spoken(record: Record) -> str:
    """Returns an intent's name as words."""
    return record.text("intent").replace("_", " ")


def rows(records: Sequence[Record], domain: str, intents: Sequence[str]) -> tuple[QuestionAnswer, ...]:
    """Returns a domain's utterances with their intents, and other intents of it as wrong answers."""
    made = []
    for record in records:
        if record.values["domain"] == domain:
            answer = spoken(record)
            wrong = [name for name in intents if name != answer]
            made.append(QuestionAnswer(record.text("text"), answer, (), tuple(wrong[:WRONG_INTENTS])))
    return tuple(made)


def sentence_pairs(config: DataConfig) -> dict[str, tuple[QuestionAnswer, ...]]:
    """Returns O3's utility sets MRPC and RTE, where they are local or may be downloaded."""
    sets = {
        "mrpc": ("Do these sentences mean the same?", ("no", "yes")),
        "rte": ("Does the second sentence follow from the first?", ("yes", "no")),
    }
    utility = {}
    for name, (question, words) in sets.items():
        hub = HubFile("nyu-mll/glue", name, "validation")
        found = try_records(config, f"clinc150/{name}.jsonl", ("sentence1", "sentence2", "label"), hub)
        if found is not None:
            utility[name] = tuple(pair_row(record, question, words) for record in found)
    return utility


def pair_row(record: Record, question: str, words: tuple[str, str]) -> QuestionAnswer:
    """Returns a row about two sentences; the label counts into the two answer words."""
    label = record.label("label")
    if label not in ("0", "1"):
        raise InputError(f"expected 0 or 1, got {label}", path=record.path, line=record.line, field="label")
    prompt = f"{question}\n1. {record.text('sentence1')}\n2. {record.text('sentence2')}"
    answer = words[int(label)]
    return QuestionAnswer(prompt, answer, (), tuple(word for word in words if word != answer))
