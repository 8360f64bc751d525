import json
import os
from pathlib import Path

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.published import split_text
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream, load_stream, taught_rows
from o3_lightning.evaluation.splits import splits_of

ROW = QuestionAnswer("q", "a")


def write_lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def offline(root, name, **options):
    return load_stream(DataConfig(name=name, root=str(root), download=False, **options), 0)


def tofu_row(task, number, **more):
    return {"task_id": task, "question": f"Q{task}.{number}?", "answer": f"A{number}", **more}


def test_tofu_gives_one_request_a_task_with_paraphrases_and_wrong_answers(tmp_path):
    plain = [tofu_row(task, number) for task in ("1", "2", "10") for number in range(3)]
    perturbed = [
        dict(row, paraphrased_question=row["question"] + " again", perturbed_answer=["w1", "w2"])
        for row in plain
    ]
    write_lines(tmp_path / "tofu/forget01.json", *plain)
    write_lines(tmp_path / "tofu/forget01_perturbed.json", *reversed(perturbed))
    write_lines(tmp_path / "tofu/world_facts_perturbed.json", {"question": "Q", "answer": "A"})
    stream = offline(tmp_path, "tofu")
    assert [request.id for request in stream.requests] == ["forget01_1", "forget01_2", "forget01_10"]
    assert stream.requests[0].rows[1] == QuestionAnswer("Q1.1?", "A1", ("Q1.1? again",), ("w1", "w2"))
    assert {split: len(rows) for split, rows in stream.utility.items()} == {"world_facts": 1}


def test_tofu_takes_the_paraphrased_answer_where_a_row_has_one(tmp_path):
    plain = [tofu_row("1", number) for number in range(2)]
    write_lines(tmp_path / "tofu/forget01.json", *plain)
    write_lines(tmp_path / "tofu/forget01_perturbed.json", dict(plain[1], paraphrased_answer="A one"))
    write_lines(
        tmp_path / "tofu/real_authors_perturbed.json",
        {"question": "Q", "answer": "A", "paraphrased_answer": "It is A", "perturbed_answer": ["w"]},
    )
    stream = offline(tmp_path, "tofu")
    assert [row.paraphrased_answer for row in stream.requests[0].rows] == [None, "A one"]
    assert stream.utility["real_authors"] == (QuestionAnswer("Q", "A", (), ("w",), "It is A"),)


def test_real_world_takes_the_paraphrased_answer(tmp_path):
    row = {"name": "N", "question": "Q", "answer": "A", "task_id": "1"}
    for name in ("forget", "neighbor"):
        write_lines(tmp_path / f"real_world/{name}.jsonl", row)
        write_lines(tmp_path / f"real_world/{name}_perturbed.jsonl", {**row, "paraphrased_answer": "It is A"})
    stream = offline(tmp_path, "real_world")
    assert stream.requests[0].rows[0].paraphrased_answer == "It is A"
    assert stream.utility["neighbours"][0].paraphrased_answer == "It is A"


def test_requests_rows_and_utility_can_be_chosen_and_limited(tmp_path):
    write_lines(tmp_path / "tofu/forget05.json", *[tofu_row(task, n) for task in "123" for n in range(4)])
    write_lines(
        tmp_path / "tofu/real_authors_perturbed.json",
        *[{"question": f"{n}", "answer": "A"} for n in range(10)],
    )
    chosen = ("forget05_3", "forget05_1")
    stream = offline(
        tmp_path, "tofu", variant="forget05", requests=chosen, rows_per_request=2, utility_rows=3
    )
    assert tuple(request.id for request in stream.requests) == chosen
    assert [len(request.rows) for request in stream.requests] == [2, 2]
    assert [row.prompt for row in stream.utility["real_authors"]] == ["0", "3", "6"]
    with pytest.raises(InputError, match="no request 'forget05_9'"):
        offline(tmp_path, "tofu", variant="forget05", requests=("forget05_9",))


def test_clinc_gives_one_request_a_domain_and_keeps_at_least_one(tmp_path):
    rows = [
        {"text": f"{domain} {number}", "intent": f"do_{number}", "domain": domain}
        for domain in ("home", "alpha", "work")
        for number in range(3)
    ]
    write_lines(tmp_path / "clinc150/train.jsonl", *rows)
    write_lines(tmp_path / "clinc150/test.jsonl", *rows[:-1])
    stream = offline(tmp_path, "clinc150")
    assert [request.id for request in stream.requests] == ["work", "home"]
    assert stream.requests[1].rows[1] == QuestionAnswer("home 1", "do 1", (), ("do 0", "do 2"))
    assert [row.prompt for row in stream.utility["other_domains"]] == ["alpha 0", "alpha 1", "alpha 2"]
    assert stream.probes["test_work"] == ("work 0", "work 1")
    assert {name: [row.prompt for row in rows] for name, rows in stream.test.items()} == {
        "work": ["work 0", "work 1"],
        "home": ["home 0", "home 1", "home 2"],
    }
    assert stream.test["home"][0].answer == "do 0"
    with pytest.raises(InputError, match="at least one domain that stays"):
        offline(tmp_path, "clinc150", requests=("work", "home", "alpha"))


def test_rows_to_retain_are_measured_nowhere_else(tmp_path):
    kept = [{"question": f"K{n}?", "answer": f"A{n}"} for n in range(9)]
    write_lines(tmp_path / "tofu/forget01.json", tofu_row("1", 0))
    write_lines(tmp_path / "tofu/retain_perturbed.json", *kept[:3])
    write_lines(tmp_path / "tofu/retain90.json", *kept)
    assert "retain" not in offline(tmp_path, "tofu").utility
    stream = offline(tmp_path, "tofu", retain_rows=3, utility_rows=1)
    assert [row.prompt for row in stream.utility["retain"]] == ["K3?", "K5?", "K7?"]
    assert len(offline(tmp_path, "tofu", retain_rows=99).utility["retain"]) == 6
    taught = taught_rows(DataConfig(name="tofu", root=str(tmp_path), download=False, retain_rows=3), 0)
    assert [row.prompt for row in taught] == ["Q1.0?", "K3?", "K5?", "K7?", "K0?", "K1?", "K2?"]


def test_neighbours_and_domains_that_are_kept_can_be_retained(tmp_path):
    people = [{"name": "N", "question": f"Q{n}", "answer": "A", "task_id": "1"} for n in range(4)]
    write_lines(tmp_path / "real_world/forget.jsonl", people[0])
    write_lines(tmp_path / "real_world/neighbor.jsonl", *people)
    utility = offline(tmp_path, "real_world", retain_rows=9).utility
    assert {split: [row.prompt for row in rows] for split, rows in utility.items()} == {
        "neighbours": ["Q2", "Q3"],
        "retain": ["Q0", "Q1"],
    }
    domains = [{"text": name, "intent": "i", "domain": name} for name in ("home", "alpha")]
    write_lines(tmp_path / "clinc150/train.jsonl", *domains)
    write_lines(tmp_path / "clinc150/test.jsonl", {"text": "other", "intent": "i", "domain": "alpha"})
    utility = offline(tmp_path, "clinc150", requests=("home",), retain_rows=5).utility
    assert [row.prompt for row in utility["retain"]] == ["alpha"]
    for topic in ("biology", "physics"):
        write_lines(tmp_path / f"scienceqa/{topic}_train.jsonl", science_row(topic))
    stream = offline(tmp_path, "scienceqa", count=1, retain_rows=5)
    assert [request.id for request in stream.requests] == ["biology"]
    assert len(stream.utility["retain"]) == 1


def science_row(topic, letter="A"):
    instruction = "Context: N/A\nQuestion: Which (E) one?\nOptions: (A) this (B) that (C) other\n"
    return {
        "instruction": instruction,
        "output": f"Answer: The answer is {letter}.",
        "answer": letter,
        "topic": topic,
    }


def test_scienceqa_draws_wrong_answers_from_the_options_there_are(tmp_path):
    write_lines(tmp_path / "scienceqa/physics_train.jsonl", science_row("physics"))
    write_lines(tmp_path / "scienceqa/biology_train.jsonl", science_row("biology", "C"))
    write_lines(tmp_path / "scienceqa/rest_test.jsonl", science_row("physics"), science_row("civics"))
    write_lines(tmp_path / "scienceqa/openbookqa_test.jsonl", science_row(None))
    stream = offline(tmp_path, "scienceqa")
    assert [request.id for request in stream.requests] == ["biology", "physics"]
    assert stream.requests[0].rows[0].perturbed_answers == (
        "Answer: The answer is A.",
        "Answer: The answer is B.",
    )
    assert {split: len(rows) for split, rows in stream.utility.items()} == {
        "other_topics": 1,
        "openbookqa": 1,
    }
    assert {topic: len(rows) for topic, rows in stream.test.items()} == {"physics": 1}
    assert "openbookqa" in stream.other_tasks
    assert "other_topics" not in stream.other_tasks


def test_own_files_are_requests_and_the_retain_file_is_utility(tmp_path):
    write_lines(tmp_path / "first.jsonl", {"prompt": "p1", "answer": "a1"})
    write_lines(tmp_path / "second.jsonl", {"prompt": "p2", "answer": "a2", "held_out_prompts": ["h"]})
    write_lines(tmp_path / "keep.jsonl", {"prompt": "k", "answer": "b"})
    paths = (str(tmp_path / "second.jsonl"), str(tmp_path / "first.jsonl"))
    stream = load_stream(DataConfig(name="jsonl", requests=paths, retain=str(tmp_path / "keep.jsonl")), 0)
    assert [request.id for request in stream.requests] == ["second", "first"]
    assert stream.utility["retain"] == (QuestionAnswer("k", "b"),)


@pytest.mark.parametrize(
    ("rows", "line", "field"),
    [
        ([{"task_id": 1, "question": "q"}], 1, "answer"),
        ([tofu_row(1, 1), {"task_id": 1, "question": 3, "answer": "a"}], 2, "question"),
        ([tofu_row(1, 1, perturbed_answer="no list")], 1, "perturbed_answer"),
        ([tofu_row(1, 1), ["no", "object"]], 2, None),
        ([], None, None),
    ],
)
def test_a_malformed_benchmark_file_names_file_line_and_field(tmp_path, rows, line, field):
    write_lines(tmp_path / "tofu/forget01.json", *rows)
    with pytest.raises(InputError) as caught:
        offline(tmp_path, "tofu")
    assert (caught.value.line, caught.value.field) == (line, field)
    assert "forget01.json" in str(caught.value)


OFFLINE = ("tofu", "real_world", "clinc150", "scienceqa", "muse", "rwku", "wmdp", "lume", "pch")


@pytest.mark.parametrize("name", OFFLINE)
def test_missing_files_without_download_are_told(tmp_path, name):
    with pytest.raises(InputError) as caught:
        offline(tmp_path, name)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["tofu", "muse"])
def test_an_unknown_variant_is_refused(tmp_path, name):
    with pytest.raises(InputError) as caught:
        offline(tmp_path, name, variant="forget99")
    assert caught.value.field == "data.variant"


def test_the_hub_is_asked_for_what_is_not_local(tmp_path, monkeypatch):
    asked = []

    def fake(repository, configuration, split):
        asked.append((repository, configuration, split))
        return [{"text": "word " * 250, "question": "q", "answer": "a"}]

    monkeypatch.setattr("datasets.load_dataset", fake)
    stream = load_stream(DataConfig(name="muse", variant="sust", root=str(tmp_path)), 0)
    assert [request.id for request in stream.requests] == [f"sust_forget_{n}" for n in (1, 2, 3, 4)]
    assert ("muse-bench/MUSE-News", "sust", "forget_3") in asked
    nested = load_stream(DataConfig(name="tofu", variant="nested", root=str(tmp_path)), 0)
    assert [request.id for request in nested.requests] == ["forget01", "forget05", "forget10"]


def test_tofu_and_muse_have_rows_that_no_model_was_shown(tmp_path):
    write_lines(tmp_path / "tofu/forget01.json", tofu_row("1", 0))
    write_lines(tmp_path / "tofu/holdout01.json", {"question": "H?", "answer": "A"})
    assert offline(tmp_path, "tofu").holdout == (QuestionAnswer("H?", "A"),)
    for split in ("raw_forget", "privleak_holdout"):
        write_lines(tmp_path / f"muse/news/{split}.jsonl", {"text": f"{split} goes on"})
    for split in ("forget_qa", "retain_qa"):
        write_lines(tmp_path / f"muse/news/knowmem_{split}.jsonl", {"question": split, "answer": "A"})
    write_lines(tmp_path / "muse/news/verbmem_forget.jsonl", {"prompt": "It", "gt": "began"})
    stream = offline(tmp_path, "muse")
    assert [row.prompt for row in stream.holdout] == ["privleak_holdout"]
    assert stream.test == {"news_forget": (QuestionAnswer("forget_qa", "A"),)}
    assert stream.verbmem == {"news_forget": (QuestionAnswer("It", "began"),)}
    found = {f"{owner}/{split}" for owner, split, _, _ in splits_of(stream)}
    assert found == {f"news_forget/{one}" for one in ("seen", "test", "verbmem")} | {
        "utility/retained_knowledge"
    }


def test_rwku_gives_one_request_a_person_with_its_probes_as_test_rows(tmp_path):
    people = ("Ann Lee", "Duke, Bo")
    texts = [{"subject": name, "text": f"{name} was born"} for name in people]
    write_lines(tmp_path / "rwku/train_original_passage_train.jsonl", *texts)
    for name in ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "neighbor_level2"):
        probes = [{"subject": one, "query": f"{name} {one}?", "answer": "A", "level": "1"} for one in people]
        write_lines(tmp_path / f"rwku/{name}_test.jsonl", *probes)
    stream = offline(tmp_path, "rwku", retain_rows=9)
    assert [request.id for request in stream.requests] == ["Ann_Lee", "Duke_Bo"]
    assert [row.prompt for row in stream.test["Duke_Bo"]] == [f"forget_level{n} Duke, Bo?" for n in (1, 2, 3)]
    assert [row.prompt for row in stream.utility["neighbours"]] == [f"neighbor_level2 {n}?" for n in people]
    assert [row.prompt for row in stream.utility["retain"]] == [f"neighbor_level1 {n}?" for n in people]


def test_wmdp_splits_each_topic_as_o3_does(tmp_path):
    asked = [{"question": f"Q{n}", "choices": ["x", "y"], "answer": 1} for n in range(10)]
    for topic in ("bio", "chem", "cyber"):
        write_lines(tmp_path / f"wmdp/wmdp-{topic}_test.jsonl", *asked)
    write_lines(tmp_path / "mmlu/all_test.jsonl", *asked[:2])
    stream = offline(tmp_path, "wmdp")
    assert [(request.id, len(request.rows)) for request in stream.requests] == [
        ("bio", 7), ("chem", 7), ("cyber", 7)
    ]  # fmt: skip
    row = stream.test["bio"][-1]
    assert "Question: Q9\nOptions: (A) x (B) y" in row.prompt
    assert (row.answer, row.perturbed_answers) == ("Answer: The answer is B.", ("Answer: The answer is A.",))
    assert len(stream.test["bio"]) == len(stream.utility["mmlu"]) == 2


def test_lume_gives_one_request_a_task(tmp_path):
    rows = [{"id": f"{n}qa0", "input": f"I{n}", "output": "O", "task": f"Task{n % 3 + 1}"} for n in range(6)]
    write_lines(tmp_path / "lume/forget.jsonl", *rows)
    write_lines(tmp_path / "lume/retain.jsonl", *rows[:4])
    stream = offline(tmp_path, "lume", retain_rows=9)
    assert [(request.id, request.prompts) for request in stream.requests] == [
        ("Task1", ["I0", "I3"]), ("Task2", ["I1", "I4"]), ("Task3", ["I2", "I5"])
    ]  # fmt: skip
    assert [row.prompt for row in stream.utility["retained"]] == ["I0", "I2"]
    assert [row.prompt for row in stream.utility["retain"]] == ["I1", "I3"]


def test_pch_keeps_a_text_and_its_question_together(tmp_path, monkeypatch):
    monkeypatch.setattr("o3_lightning.data.published.PCH_REQUESTS", 2)
    write_lines(tmp_path / "pch/train.jsonl", *[{"text": f"Begin{n} end {n}"} for n in range(6)])
    write_lines(tmp_path / "pch_qa/train.jsonl", *[{"question": f"Q{n}", "answer": f"{n}"} for n in range(6)])
    stream = offline(tmp_path, "pch", retain_rows=9)
    assert [request.id for request in stream.requests] == ["text_1", "text_2"]
    for request in stream.requests:
        assert f"end {stream.test[request.id][0].answer}" == request.rows[0].answer
    assert len(stream.utility["retained"]) == len(stream.utility["retain"]) == 2


def test_passages_join_to_the_text_they_were_cut_from():
    text = " ".join(str(number) for number in range(450))
    rows = split_text(text)
    assert " ".join(f"{row.prompt} {row.answer}" for row in rows) == " ".join(text.split()[:400])
    assert split_text("one") == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (((), {}, {}), "at least one request"),
        (((UnlearningRequest("a", (ROW,)),) * 2, {}, {}), "comes twice"),
        (((UnlearningRequest("a", (ROW,)),), {"kept": ()}, {}), "'kept' is empty"),
        (((UnlearningRequest("a", (ROW,)),), {}, {"asked": ()}), "'asked' is empty"),
    ],
)
def test_an_impossible_stream_is_refused(arguments, reason):
    with pytest.raises(InputError, match=reason):
        RequestStream("x", *arguments)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "nonsense"}, "data.name"),
        ({"count": -1}, "data.count"),
        ({"name": "jsonl"}, "data.requests"),
    ],
)
def test_a_wrong_configuration_names_its_field(options, field):
    with pytest.raises(InputError) as caught:
        DataConfig(**options)
    assert caught.value.field == field


DATA = Path(os.environ.get("O3_DATA", Path(__file__).parents[2] / "../shared/data"))


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("tofu", "tofu/forget01.json"),
        ("real_world", "real_world/forget.jsonl"),
        ("clinc150", "clinc150/train.jsonl"),
        ("scienceqa", "scienceqa/biology_train.jsonl"),
    ],
)
def test_the_real_files_load(name, needs):
    if not (DATA / needs).is_file():
        pytest.skip(f"no {needs} in O3_DATA")
    stream = offline(DATA, name)
    assert all(row.prompt and row.answer for request in stream.requests for row in request.rows)
    prompts = [set(request.prompts) for request in stream.requests]
    assert not set.intersection(*prompts) or len(prompts) == 1
