"""The length of an answer: a model that unlearning broke often says very little, or goes on and on."""

from o3_lightning import metric


@metric("answer_words", "answers", forget=None, keep=None, meaning="words in the answer")
def answer_words(answers):
    """Returns the number of words of each answer."""
    return [float(len(answer.split())) for answer in answers]
