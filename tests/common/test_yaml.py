"""A key that comes twice is a mistake, but one that stands in for a key of a merged mapping is none."""

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.common.yaml import read_mapping

MERGED = """\
common: &common {rank: 1, seed: 0}
variants:
  wide: &wide
    <<: *common
    rank: 2
again:
  <<: *wide
  seed: 3
"""


def test_a_merged_mapping_may_be_changed_and_merged_again(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text(MERGED)
    content = read_mapping(path)
    assert content["variants"] == {"wide": {"rank": 2, "seed": 0}}
    assert content["again"] == {"rank": 2, "seed": 3}


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 10)}]\n" for n in range(9)),
        "a: &a [*a]\n",
    ],
    ids=["bomb", "circle"],
)
def test_aliases_that_blow_a_file_up_are_refused_before_it_is_built(tmp_path, text):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bomb.yaml: is not YAML: more than 100,000 keys and values"):
        read_mapping(path)


def test_a_key_that_comes_twice_is_told_at_any_depth(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(MERGED.replace("    rank: 2", "    rank: 2\n    rank: 4"))
    with pytest.raises(InputError, match=r"key 'rank' comes twice.* line 6"):
        read_mapping(path)
