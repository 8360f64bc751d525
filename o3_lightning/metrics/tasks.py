"""Metrics of the tasks of Reveal and Release: entities by type, programs under tests, numbers of GSM8K."""

import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from o3_lightning.metrics.registry import metric

ENTITY_TYPES = ("PER", "LOC", "ORG", "MISC")  # of CoNLL-2003
ENTITY = re.compile(rf"\b({'|'.join(ENTITY_TYPES)})\s*:\s*([^;\n]+)")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
FENCED = re.compile(r"```(?:python)?\s*\n(.*?)```", re.DOTALL)
SECONDS, MEMORY_BYTES, FILE_BYTES = 10, 2**30, 2**20  # limits of a program


def entity_f1(answers: Sequence[str], truths: Sequence[str], kind: str) -> list[float | None]:
    """Returns the F1 of the entities of one type in each answer; None where neither text names one.

    Answers and truths list entities as "PER: Ada Lovelace; LOC: London"; every one counts once, as written.

    Example:
        >>> entity_f1(["PER: Ada; LOC: Rome"], ["PER: Ada; PER: Bob"], "PER")
        [0.6666666666666666]
    """
    values: list[float | None] = []
    for said, true in zip(answers, truths, strict=True):
        found, wanted = (
            Counter(name.strip() for label, name in ENTITY.findall(text) if label == kind)
            for text in (said, true)
        )
        total = found.total() + wanted.total()
        values.append(2 * (found & wanted).total() / total if total else None)
    return values


for each in ENTITY_TYPES:
    metric(f"entity_f1@{each}", "answers", "truths", meaning=f"F1 of the entities of type {each}")(
        partial(entity_f1, kind=each)
    )


@metric("gsm8k", "answers", "truths", meaning="share of answers whose last number is the truth's")
def gsm8k(answers: Sequence[str], truths: Sequence[str]) -> list[float]:
    """Returns 1.0 where the last number of an answer equals the truth's, else 0.0; commas do not count.

    Source:
        Cobbe et al. 2021; a truth ends with "#### 42".

    Example:
        >>> gsm8k(["So it is 1,200 dollars.", "7"], ["#### 1200", "#### 8"])
        [1.0, 0.0]
    """
    pairs = zip(answers, truths, strict=True)
    return [float(last_number(said) == last_number(true) is not None) for said, true in pairs]


def last_number(text: str) -> float | None:
    """Returns the last number in a text, None if there is none."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


@metric("pass_at_1", "prompts", "answers", "tests", meaning="share of answers whose program passes its tests")
def pass_at_1(prompts: Sequence[str], answers: Sequence[str], tests: Sequence[str]) -> list[float]:
    """Returns 1.0 where the program in an answer passes its tests, else 0.0.

    The program is the first fenced block of the answer, or all of it; an answer without "def" continues its
    prompt, as in HumanEval. Only with `evaluation.run_code`, because the programs are executed.
    """
    values = []
    for prompt, answer, test in zip(prompts, answers, tests, strict=True):
        fenced = FENCED.search(answer)
        code = fenced.group(1) if fenced else answer
        values.append(float(passes(code if "def " in code else prompt + code, test)))
    return values


def passes(program: str, tests: str, seconds: int = SECONDS) -> bool:
    """Whether a Python program and its tests end without an error, in a process of their own.

    The process has an empty folder and environment, no installed packages, and limits of time, memory and
    file size; it can still read files and use the network. Run untrusted models in a container.
    """
    with TemporaryDirectory() as folder:
        done, nonce = Path(folder) / "done", secrets.token_hex()  # a program may exit before its tests
        check = f"open({str(done)!r}, 'w').write({nonce!r})"
        file = Path(folder) / "program.py"
        file.write_text(f"{program}\n{tests}\n{check}\n", encoding="utf-8")
        try:
            subprocess.run(  # noqa: S603  (only with evaluation.run_code)
                [sys.executable, "-I", "-S", str(file)],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=seconds,
                preexec_fn=limit if sys.platform != "win32" else None,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.is_file() and done.read_text() == nonce


def limit() -> None:
    """Limits the time, memory and files of the process that calls it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
