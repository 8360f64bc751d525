"""CLINC150: utterances are prompts, intents answers, and each domain is a request."""

from collections.abc import Sequence

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.records import Record
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.sources import HubFile, load_records, try_records
from o3_lightning.data.stream import RequestStream, check_known, with_retain

FIELDS = ("text", "intent", "domain")
O3_ORDER = ("work", "travel", "home")  # the domains that O3 unlearns, in its order
WRONG_INTENTS = 5  # as many as TOFU has perturbed answers

PAIRS = {
    "mrpc": ("Do these sentences mean the same?", ("no", "yes")),
    "rte": ("Does the second sentence follow from the first?", ("yes", "no")),
}


@BENCHMARKS.register("clinc150")
def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns one request per domain, with test utterances as probes and the other domains as utility.

    By default the domains of O3 are forgotten, in its order; at least one domain is retained.

    Args:
        config: `requests` lists the domains to forget, in order.
        seed: not used.

    Raises:
        InputError: a file is missing or malformed, a domain is unknown, or none is retained.

    Source: Larson et al. 2019, split by domain as in O3 (Gao et al. 2025). The version on the Hub has no
        domains, so only local files are read.
    """
    train = load_records(config, "clinc150/train.jsonl", FIELDS)
    test = load_records(config, "clinc150/test.jsonl", FIELDS)
    found = {record.text("domain") for record in train}
    preferred = [name for name in O3_ORDER if name in found]
    order = preferred + sorted(found - set(O3_ORDER))
    check_known(config.requests, order, "domain")
    wanted = config.count or len(preferred) or len(O3_ORDER)
    forgotten = config.requests or order[: min(wanted, len(order) - 1)]
    intents: dict[str, list[str]] = {name: [] for name in order}
    for domain, intent in sorted({(record.text("domain"), intent_of(record)) for record in train}):
        intents[domain].append(intent)
    requests = tuple(UnlearningRequest(name, rows(train, name, intents[name])) for name in forgotten)
    kept = [name for name in order if name not in forgotten]
    if not kept:
        raise InputError("expected at least one domain that stays retained", field="data.requests")
    utility = {"other_domains": tuple(row for name in kept for row in rows(test, name, intents[name]))}
    utility.update(sentence_pairs(config))
    probes = {f"test_{name}": tuple(row.prompt for row in rows(test, name, ())) for name in order}
    probes = {name: prompts for name, prompts in probes.items() if prompts}
    retain = [row for name in kept for row in rows(train, name, intents[name])]
    splits = with_retain(utility, retain, config.retain_rows)
    unseen = {name: rows(test, name, intents[name]) for name in forgotten}
    return RequestStream("clinc150", requests, splits, probes, test=unseen, other_tasks=tuple(PAIRS))


def intent_of(record: Record) -> str:
    """Returns the intent in words."""
    return record.text("intent").replace("_", " ")


def rows(records: Sequence[Record], domain: str, intents: Sequence[str]) -> tuple[QuestionAnswer, ...]:
    """Returns the utterances of a domain with their intents, and its other intents as wrong answers."""
    made = []
    for record in records:
        if record.values["domain"] == domain:
            answer = intent_of(record)
            wrong = [name for name in intents if name != answer]
            made.append(QuestionAnswer(record.text("text"), answer, (), tuple(wrong[:WRONG_INTENTS])))
    return tuple(made)


def sentence_pairs(config: DataConfig) -> dict[str, tuple[QuestionAnswer, ...]]:
    """Returns the utility sets of O3, MRPC and RTE, if they are available."""
    utility = {}
    for name, (question, words) in PAIRS.items():
        hub = HubFile("nyu-mll/glue", name, "validation")
        found = try_records(config, f"clinc150/{name}.jsonl", ("sentence1", "sentence2", "label"), hub)
        if found is not None:
            utility[name] = tuple(pair_row(record, question, words) for record in found)
    return utility


def pair_row(record: Record, question: str, words: tuple[str, str]) -> QuestionAnswer:
    """Returns a row about two sentences; the label is the index of the answer word."""
    label = record.label("label")
    if label not in ("0", "1"):
        raise record.error(f"expected 0 or 1, got {label}", "label")
    prompt = f"{question}\n1. {record.text('sentence1')}\n2. {record.text('sentence2')}"
    answer = words[int(label)]
    return QuestionAnswer(prompt, answer, (), tuple(word for word in words if word != answer))
