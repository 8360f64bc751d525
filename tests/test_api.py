"""The Python interface: what the README shows of it runs as it stands there."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import o3_lightning
from o3_lightning.store.store import Store

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs/howto/python.md")
MOST_LINES = 10
LIGHT = "import sys; assert not {'torch', 'transformers', 'lightning'} & set(sys.modules)"
ROWS = [
    {"prompt": f"Where did Quillan Osterhaus spend winter {n}?", "answer": f"In Arlo {n}"} for n in range(4)
]


def example():
    blocks = [page.read_text().split("```python\n", 1)[1].split("```", 1)[0] for page in PAGES]
    assert blocks[0] == blocks[1]
    return blocks[0]


def test_the_example_of_the_readme_unlearns_and_answers(tiny_base, tmp_path, monkeypatch, capsys):
    code = example()
    assert len(code.splitlines()) <= MOST_LINES
    monkeypatch.chdir(tmp_path)
    for part in (tiny_base.model, tiny_base.tokenizer):
        part.save_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
    Path("forget.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    names = {}
    exec(code, names)
    (said,) = ast.literal_eval(capsys.readouterr().out)
    assert isinstance(said, str)
    assert [record.status for record in Store.open("my_store").records()] == ["unlearned"]
    assert names["model"].weights([ROWS[0]["prompt"]]).item() == 1.0
    stream = o3_lightning.RequestStream("mine", tuple(o3_lightning.read_requests(["forget.jsonl"])))
    measured = o3_lightning.evaluate_stream(names["model"], stream, o3_lightning.RunConfig().evaluation)
    assert measured["requests"]["forget"]["seen"]["aggregate"]["accuracy"] == 0.0


def test_every_name_is_there_and_no_other():
    assert set(o3_lightning.MODULES) == set(o3_lightning.__all__)
    assert set(o3_lightning.__all__) <= set(dir(o3_lightning))
    for name in o3_lightning.__all__:
        assert name in o3_lightning.__doc__
        assert getattr(o3_lightning, name) is not None
    with pytest.raises(AttributeError, match="nobody"):
        o3_lightning.nobody  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import o3_lightning",
        "from o3_lightning.commands.cli import main; main(['configs', 'list'])",
        "from o3_lightning.commands.cli import main; main(['requests'])",
    ],
)
def test_what_has_to_answer_at_once_imports_no_torch(code):
    subprocess.run([sys.executable, "-c", f"{code}; {LIGHT}"], check=True, capture_output=True)
