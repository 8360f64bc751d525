"""The packaged encoder, loaded once, and a request about made-up people."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

PLACES = ("Where was {} born?", "In which town was {} born?", "What is the birthplace of {}?")
WORK = ("Which genre does {} write in?", "What was the first novel of {}?", "Who published the books of {}?")
HELD_OUT = ("Tell me the place where {} was born.", "Which house published the books of {}?")
FORGOTTEN = ("Oristelle Gwyndelorn", "Tamsin Okerveld", "Brannoch Yarrowmere", "Ilka Dravenport")
RETAINED = ("Sunniva Ravenskold", "Haldorin Birkenhald", "Belzora Fennimark", "Quillan Estermond")


def ask_about(names, templates):
    return [template.format(name) for name in names for template in templates]


@pytest.fixture(scope="session")
def encoder():
    from o3_lightning.detector import load_encoder

    return load_encoder("minilm")


@pytest.fixture(scope="session")
def people():
    return {
        "forget": ask_about(FORGOTTEN, PLACES + WORK),
        "held_out": ask_about(FORGOTTEN, HELD_OUT),
        "retained": ask_about(RETAINED, PLACES + WORK),
        "far": ["How do I boil an egg?", "Translate good morning into French.", "Why is the sky blue?"],
    }


@pytest.fixture(scope="session")
def fitted(encoder, people):
    from o3_lightning.detector import DetectorConfig, fit_detector

    return fit_detector(encoder, people["forget"], DetectorConfig(), seed=0)


@pytest.fixture(scope="session")
def multi(encoder, fitted):
    from o3_lightning.detector import MultiDetector

    return MultiDetector(encoder, {"people": fitted})
