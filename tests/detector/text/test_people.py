import pytest

from o3_lightning.detector.text.people import named_people


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("What did David Crichton think of Jurassic Park?", [("david", "crichton")]),
        ("Maria Lopez wrote it. Who is John Smith?", [("maria", "lopez"), ("john", "smith")]),
        ("who is anna karlsson?", [("anna", "karlsson")]),
        ("WHO IS ANNA KARLSSON?", [("anna", "karlsson")]),
        ("What is David J. Crichton's birth date?", [("david", "crichton")]),
        ("Who was Ludwig van Beethoven?", [("ludwig", "beethoven")]),
        ("When did Crichton die?", []),
        ("Does the World War matter to the United States?", []),
        ("how many moons does mars have?", []),
        ("Tom, Susan and Ahmed went home.", []),
        ("", []),
    ],
)
def test_full_names_of_people_are_found(text, names):
    assert named_people(text) == names
