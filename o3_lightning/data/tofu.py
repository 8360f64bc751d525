"""TOFU and the real-world people of the closer-look benchmark, one request per task id."""

from collections.abc import Iterable, Sequence

from o3_lightning.common.checks import check_among
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.records import Record
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.sources import HubFile, load_records, try_records
from o3_lightning.data.stream import RETAIN, RequestStream, with_retain

REPOSITORY = "locuslab/TOFU"
REAL_WORLD_FIELDS = ("name", "question", "answer")
FORGET = ("forget01", "forget05", "forget10")
UTILITY = {
    "retained_authors": "retain_perturbed",
    "real_authors": "real_authors_perturbed",
    "world_facts": "world_facts_perturbed",
}
OTHER_TASKS = ("real_authors", "world_facts")


@BENCHMARKS.register("tofu")
def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns TOFU's forget sets as requests, and its three other sets as utility.

    Variants: "forget01", "forget05" and "forget10" give one request per task id of the continual files, or
    one request with the whole split without these files; "nested" gives forget01, forget05 and forget10 as
    three requests that each contain the previous one, as in O3.

    Raises:
        InputError: an unknown variant, or a file that is missing or malformed.

    Source: TOFU (Maini et al. 2024); closer-look (Yuan et al. 2025) for the continual files; O3 (Gao et al.
        2025) for the nested order.
    """
    variant = config.variant or FORGET[0]
    check_among(variant, (*FORGET, "nested"), "data.variant")
    if variant == "nested":
        requests = tuple(UnlearningRequest(name, whole_split(config, name)) for name in FORGET)
    else:
        requests = group_by_task(forget_records(config, variant), variant)
    utility: dict[str, Sequence[QuestionAnswer]] = {}
    for split, name in UTILITY.items():
        found = try_records(config, f"tofu/{name}.json", ("question", "answer"), HubFile(REPOSITORY, name))
        if found is not None:
            utility[split] = tuple(to_row(record) for record in found)
    unseen = variant.replace("forget", "holdout") if variant in FORGET else "holdout10"
    holdout = try_records(config, f"tofu/{unseen}.json", ("question", "answer"), HubFile(REPOSITORY, unseen))
    if config.retain_rows:
        hub = HubFile(REPOSITORY, "retain90")
        kept = load_records(config, "tofu/retain90.json", ("question", "answer"), hub)
        utility = with_retain(utility, [to_row(record) for record in kept], config.retain_rows)
    taught = (RETAIN, "retained_authors")
    rows = tuple(map(to_row, holdout or ()))
    return RequestStream(
        f"tofu/{variant}", requests, utility, holdout=rows, other_tasks=OTHER_TASKS, taught=taught
    )


@BENCHMARKS.register("real_world")
def load_real_world(config: DataConfig, seed: int) -> RequestStream:
    """Returns one request per real person (task id), and their neighbours as utility.

    Only local files are read: the benchmark is not on the Hugging Face Hub.

    Raises:
        InputError: a file is missing or malformed.

    Source: Yuan et al. 2025, "A closer look at machine unlearning for large language models".
    """
    requests = group_by_task(read_real_world(config, "forget", (*REAL_WORLD_FIELDS, "task_id")), "person")
    rows = [to_row(record) for record in read_real_world(config, "neighbor", REAL_WORLD_FIELDS)]
    half = len(rows) // 2 if config.retain_rows else 0  # one half is measured, the other may be trained on
    utility = with_retain({"neighbours": rows[half:]}, rows[:half], config.retain_rows)
    return RequestStream("real_world", requests, utility, taught=(RETAIN, "neighbours"))


def read_real_world(config: DataConfig, name: str, fields: Sequence[str]) -> list[Record]:
    """Returns a split of the real-world benchmark, with perturbed answers if they are available."""
    perturbed = try_records(config, f"real_world/{name}_perturbed.jsonl", REAL_WORLD_FIELDS)
    plain = load_records(config, f"real_world/{name}.jsonl", fields)
    return merge_perturbed(plain, perturbed or [])


def forget_records(config: DataConfig, name: str) -> list[Record]:
    """Returns a forget split, with perturbed answers if they are available."""
    fields = ("question", "answer")
    hub = HubFile(REPOSITORY, f"{name}_perturbed")
    perturbed = try_records(config, f"tofu/{name}_perturbed.json", fields, hub)
    plain = load_records(config, f"tofu/{name}.json", fields, HubFile(REPOSITORY, name))
    return merge_perturbed(plain, perturbed or [])


def merge_perturbed(plain: Sequence[Record], perturbed: Sequence[Record]) -> list[Record]:
    """Returns the plain rows with the additional fields of the perturbed row of the same question."""
    extra = {(record.values.get("task_id"), record.text("question")): record.values for record in perturbed}
    merged = []
    for record in plain:
        more = extra.get((record.values.get("task_id"), record.text("question")), {})
        merged.append(Record({**more, **record.values}, record.path, record.line))
    return merged


def whole_split(config: DataConfig, name: str) -> tuple[QuestionAnswer, ...]:
    """Returns a nested forget split; the local continual files contain disjoint tasks and are not used."""
    hub = HubFile(REPOSITORY, f"{name}_perturbed")
    records = load_records(config, f"tofu/nested/{name}_perturbed.json", ("question", "answer"), hub)
    return tuple(to_row(record) for record in records)


def group_by_task(records: Iterable[Record], name: str) -> tuple[UnlearningRequest, ...]:
    """Returns one request per task id, in order of their first rows, or one request without ids."""
    groups: dict[str, list[QuestionAnswer]] = {}
    for record in records:
        task = "" if record.values.get("task_id") is None else record.label("task_id")
        groups.setdefault(f"{name}_{task}" if task else name, []).append(to_row(record))
    return tuple(UnlearningRequest(task, tuple(rows)) for task, rows in groups.items())


def to_row(record: Record) -> QuestionAnswer:
    """Returns a row whose held-out prompt is the paraphrased question, if it has another one."""
    question, answer = record.text("question"), record.text("answer")
    paraphrase = record.optional_text("paraphrased_question")
    held_out = () if paraphrase in (None, question) else (paraphrase,)
    wrong = record.texts("perturbed_answer")
    paraphrased, golden = map(record.optional_text, ("paraphrased_answer", "golden_answer"))
    return QuestionAnswer(question, answer, held_out, wrong, paraphrased, golden_answer=golden)
