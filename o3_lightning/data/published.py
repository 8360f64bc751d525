"""Benchmarks in the formats in which they are published: MUSE, RWKU, WMDP, LUME and PCH.

A split is a local file of JSON lines or on the Hugging Face Hub; a record gives one or more rows.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence

from o3_lightning.common.checks import check_among
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.records import Record
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.scienceqa import in_o3_form, to_row
from o3_lightning.data.sources import HubFile, load_records, try_records
from o3_lightning.data.stream import RETAIN, RequestStream, with_retain

Rows = tuple[QuestionAnswer, ...]
Make = Callable[[Record], Rows]
REPOSITORIES = {
    "news": "muse-bench/MUSE-News",
    "books": "muse-bench/MUSE-Books",
    "sust": "muse-bench/MUSE-News",
}
SUSTAINED = ("forget_1", "forget_2", "forget_3", "forget_4")
PROMPT_WORDS = 100  # at the start of a passage; the rest is the answer
ANSWER_WORDS = 100
PASSAGES = 20  # at most per text; a book would give thousands
RWKU, PCH = "jinzhuoran/RWKU", "XUJA231/PCH"
PROBES = ("forget_level1", "forget_level2", "forget_level3")
TRAINED, TESTED = 0.7, 0.8  # of WMDP's questions the first 70 % are forgotten, the last 20 % test, as in O3
PCH_REQUESTS = 300  # of 600 texts
ASKED, TEXT = ("question", "answer"), ("text",)


def read(
    config: DataConfig, folder: str, hub: HubFile, fields: Sequence[str], *, optional: bool = False
) -> list[Record]:
    """Returns a split of `<folder>/<configuration>_<split>.jsonl` or the Hub; [] if optional and missing."""
    name = "_".join(part for part in (hub.configuration, hub.split) if part)
    path = f"{folder}/{name}.jsonl"
    if optional:
        return try_records(config, path, fields, hub) or []
    return load_records(config, path, fields, hub)


def pair(question: str = "question", answer: str = "answer") -> Make:
    """Returns a function that makes one row of two fields."""
    return lambda record: (QuestionAnswer(record.text(question), record.text(answer)),)


def passages(record: Record) -> Rows:
    """Returns the passages of a text."""
    return tuple(split_text(record.text("text")))


def choice(record: Record) -> Rows:
    """Returns a multiple-choice question in the form of O3's ScienceQA."""
    return (to_row(in_o3_form(record)),)


def rows_of(records: Iterable[Record], make: Make) -> Rows:
    """Returns the rows of some records."""
    return tuple(row for record in records for row in make(record))


def by_field(records: Iterable[Record], field: str, make: Make) -> dict[str, Rows]:
    """Returns the rows of the records by the text of a field, made an id, in order of appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        name = re.sub(r"[^A-Za-z0-9]+", "_", record.text(field)).strip("_")
        groups.setdefault(name, []).append(record)
    return {name: rows_of(own, make) for name, own in groups.items()}


def requests_of(groups: dict[str, Rows]) -> tuple[UnlearningRequest, ...]:
    """Returns one request for each group of rows."""
    return tuple(UnlearningRequest(name, rows) for name, rows in groups.items())


def split_text(text: str) -> list[QuestionAnswer]:
    """Returns the first passages of a text; an incomplete last passage is dropped.

    Example:
        >>> len(split_text("word " * 250))
        1
    """
    words = text.split()
    size = PROMPT_WORDS + ANSWER_WORDS
    starts = range(0, max(1, len(words) - size + 1), size)
    pieces = [words[start : start + size] for start in list(starts)[:PASSAGES]]
    rows = []
    for piece in pieces:
        border = min(PROMPT_WORDS, len(piece) // 2)
        if border:
            rows.append(QuestionAnswer(" ".join(piece[:border]), " ".join(piece[border:])))
    return rows


@BENCHMARKS.register("muse")
def load_muse(config: DataConfig, seed: int) -> RequestStream:
    """Returns MUSE as requests of passages, with its questions about retained texts as utility.

    Variants: "news" and "books" are one request each, "sust" is the sequence of four requests. Texts are
    split into passages of a prompt and its continuation, and so are those of the holdout, for privleak. The
    questions about the forgotten texts (knowmem) are the test rows of "news" and "books", and verbmem is a
    split of its own; MUSE reports `rouge_l_f1`, with 32 new tokens for questions and 128 for verbmem.

    Raises:
        InputError: an unknown variant, or the data is not available.

    Source: Shi et al. 2024, "MUSE: Machine unlearning six-way evaluation"; it trains on whole texts, we on
        prompts and continuations, because the gate needs a prompt.
    """
    variant = config.variant or "news"
    check_among(variant, REPOSITORIES, "data.variant")

    def part(subset: str, split: str, fields: Sequence[str], optional: bool = False) -> list[Record]:
        hub = HubFile(REPOSITORIES[variant], subset, split)
        return read(config, f"muse/{variant}", hub, fields, optional=optional)

    subset, splits = ("sust", SUSTAINED) if variant == "sust" else ("raw", ("forget",))
    requests = requests_of(
        {f"{variant}_{split}": rows_of(part(subset, split, TEXT), passages) for split in splits}
    )
    test, verbmem = dict[str, Rows](), dict[str, Rows]()
    if variant != "sust":
        test[requests[0].id] = rows_of(part("knowmem", "forget_qa", ASKED, True), pair())
        verbmem[requests[0].id] = rows_of(
            part("verbmem", "forget", ("prompt", "gt"), True), pair("prompt", "gt")
        )
    utility = {"retained_knowledge": rows_of(part("knowmem", "retain_qa", ASKED), pair())}
    kept = rows_of(part("raw", "retain1", TEXT), passages) if config.retain_rows else ()
    holdout = rows_of(part("privleak", "holdout", TEXT, True), passages)
    splits_kept = with_retain(utility, kept, config.retain_rows)
    return RequestStream(
        f"muse/{variant}", requests, splits_kept, holdout=holdout, test=test, verbmem=verbmem
    )


@BENCHMARKS.register("rwku")
def load_rwku(config: DataConfig, seed: int) -> RequestStream:
    """Returns one request for each famous person: passages to forget, probes of three levels as test rows.

    Probes about neighbours are the utility; those of level 1 are `retain_rows`.

    Source: Jin et al. 2024; it gives no forget set but for its baselines, the passages that are taken here.
    """

    def part(name: str, fields: Sequence[str], split: str = "test") -> list[Record]:
        return read(config, "rwku", HubFile(RWKU, name, split), fields)

    probe, ask = ("subject", "query", "answer"), pair("query")
    groups = by_field(part("train_original_passage", ("subject", "text"), "train"), "subject", passages)
    probes = by_field([record for name in PROBES for record in part(name, probe)], "subject", ask)
    near, nearest = (rows_of(part(f"neighbor_level{level}", probe), ask) for level in (2, 1))
    utility = with_retain({"neighbours": near}, nearest, config.retain_rows)
    return RequestStream("rwku", requests_of(groups), utility, test=probes)


@BENCHMARKS.register("wmdp")
def load_wmdp(config: DataConfig, seed: int) -> RequestStream:
    """Returns a request for each topic of WMDP: 70 % of its questions, and 20 % as test rows, as O3 has it.

    MMLU is the utility, its validation questions the `retain_rows`.

    Source: Li et al. 2024. Its corpora of plain text are not read.
    """
    fields = (*ASKED, "choices")
    groups, test = dict[str, Rows](), dict[str, Rows]()
    for topic in ("bio", "chem", "cyber"):
        rows = rows_of(read(config, "wmdp", HubFile("cais/wmdp", f"wmdp-{topic}", "test"), fields), choice)
        groups[topic], test[topic] = rows[: int(TRAINED * len(rows))], rows[int(TESTED * len(rows)) :]
    kept, measured = (
        rows_of(read(config, "mmlu", HubFile("cais/mmlu", "all", part), fields, optional=True), choice)
        for part in ("validation", "test")
    )
    utility = with_retain({"mmlu": measured} if measured else {}, kept, config.retain_rows)
    return RequestStream("wmdp", requests_of(groups), utility, test=test, other_tasks=("mmlu",), taught=())


@BENCHMARKS.register("lume")
def load_lume(config: DataConfig, seed: int) -> RequestStream:
    """Returns LUME's three tasks as requests: creative texts, made-up people's data, real biographies.

    One half of its retained rows is measured, the other may be retained. Only local files are read.

    Source: Ramakrishna et al. 2025 (SemEval-2025 task 4), its `forget.jsonl` and `retain.jsonl`.
    """
    ask, fields = pair("input", "output"), ("input", "output", "task")
    forget, retain = (load_records(config, f"lume/{name}.jsonl", fields) for name in ("forget", "retain"))
    rows = rows_of(retain, ask)
    utility = with_retain({"retained": rows[::2]}, rows[1::2], config.retain_rows)
    requests = requests_of(by_field(forget, "task", ask))
    return RequestStream("lume", requests, utility, taught=(RETAIN, "retained"))


@BENCHMARKS.register("pch")
def load_pch(config: DataConfig, seed: int) -> RequestStream:
    """Returns 300 texts of PCH, shuffled by the seed, as requests of one text each; the others are retained.

    The question about a text is its test row. FIT's code shuffles texts, questions and answers each by
    itself, so that its questions belong to other texts; ours keeps them together.

    Source: Xu et al. 2026, "FIT to forget".
    """
    texts = read(config, "pch", HubFile(PCH), TEXT)
    asked = read(config, "pch_qa", HubFile(f"{PCH}_QA"), ASKED, optional=True)
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)  # noqa: S311
    names = {place: f"text_{number}" for number, place in enumerate(order[:PCH_REQUESTS], start=1)}
    aligned = len(asked) == len(texts)
    test = {name: pair()(asked[place]) for place, name in names.items()} if aligned else {}
    rows = rows_of([texts[place] for place in order[PCH_REQUESTS:]], passages)
    utility = with_retain({"retained": rows[::2]} if rows else {}, rows[1::2], config.retain_rows)
    requests = requests_of({name: passages(texts[place]) for place, name in names.items()})
    return RequestStream("pch", requests, utility, test=test, taught=(RETAIN, "retained"))
