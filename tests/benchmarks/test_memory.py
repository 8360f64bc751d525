"""The memory of a training: the page has what the function gives, and weights count as they are held."""

import re
from pathlib import Path

import pytest

from benchmarks.memory import LLAMA_2_7B, LLAMA_3_8B, training_memory

ROOT = Path(__file__).parents[2]
GIB, FREE, TOKENS = 2**30, 0.9, 256
MODELS = {"Llama-2-7B": LLAMA_2_7B, "Llama-3-8B": LLAMA_3_8B}
WAYS = {"bf16": {}, "4 bits": {"bits": 4}, "bf16 over 8 GPUs, on each": {"shards": 8}}


def most_rows(shape, way, gib):
    count = 0
    while training_memory(shape, count + 1, TOKENS, **way) <= FREE * gib * GIB:
        count += 1
    return count


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_the_table_of_the_page_is_what_the_function_gives(name, way):
    lines = (ROOT / "docs/howto/memory.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| rows a step |"))
    sizes = [int(size) for size in re.findall(r"(\d+) GiB", header)]
    row = next(line for line in lines if line.startswith(f"| {name}, {way} |"))
    assert [int(cell) for cell in row.split("|")[2:-1]] == [
        most_rows(MODELS[name], WAYS[way], size) for size in sizes
    ]


def test_a_model_has_as_many_weights_as_its_makers_say():
    assert LLAMA_2_7B.linear + LLAMA_2_7B.embeddings == pytest.approx(6.74e9, rel=0.001)
    assert LLAMA_3_8B.linear + LLAMA_3_8B.embeddings == pytest.approx(8.03e9, rel=0.001)


def test_four_bits_leave_embedding_and_output_layer_as_they_are():
    saved = training_memory(LLAMA_3_8B, 1, 1) - training_memory(LLAMA_3_8B, 1, 1, bits=4)
    assert saved == pytest.approx((2 - 0.55) * LLAMA_3_8B.linear)
