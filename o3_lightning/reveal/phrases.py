"""The grammar of the generated instructions: questions that fit any topic, and that know nothing about one.

"{s}" stands for a subject, "{p}" for a property, "{q}" for a whole question and "{topic}" for the topic.
"""

from __future__ import annotations

__all__ = [
    "GENERAL_SUBJECTS",
    "HEADS",
    "PROPERTIES",
    "STYLES",
    "TOPIC_SUBJECTS",
    "VERBS",
    "WH_WORDS",
    "listed",
]


def listed(text: str) -> tuple[str, ...]:
    """Reads a comma-separated list that may run over several lines."""
    return tuple(" ".join(item.split()) for item in text.split(","))


TOPIC_SUBJECTS = listed(
    """
    {topic}, the mother of {topic}, the father of {topic}, the children of {topic}, the friends of {topic},
    the work of {topic}, the first years of {topic}, the house of {topic}, the critics of {topic},
    the first book of {topic}
    """
)
GENERAL_SUBJECTS = listed(
    """
    the weather, the sea, the moon, a bicycle, a garden, a train, the winter, a cat, a horse, the kitchen,
    a birthday, the newspaper, a bridge, the river, a village, the office, a holiday, the forest, a letter,
    a ship, the market, a doctor, the school, a piano, the mountain, a farmer, the railway, a violin,
    the harbour, a mirror, the desert, a camera, the library, a museum, the theatre, a lamp, the island,
    a window, the bakery, a wedding, the queen, a soldier, the moonlight, a clock, the airport, a garage,
    the hospital, a carpet, the factory, a storm, the orchestra, a recipe, the castle, a candle, the border,
    a painter, the volcano, a magnet, the circus, a suitcase, the parliament, a compass, the vineyard,
    a detective, the pharmacy, a balloon, the stadium, a calendar, the lighthouse, a telescope, the embassy,
    a lawyer, the cathedral, a festival, the aquarium, a puzzle, the subway, a sailor, the glacier, a statue,
    the zoo, a robot, the prison, a neighbour, the canal, a dictionary, the temple, a trumpet, the jungle,
    a beard
    """
)
PROPERTIES = listed(
    """
    name, age, profession, job, birth year, birthplace, birthday, nationality, home town, address, height,
    colour, hobby, religion, language, education, school, teacher, title, genre, style, subject, publisher,
    price, prize, award, salary, health, character, reputation, opinion, politics, food, drink, music, pet,
    car, routine, journey, date of death, origin, purpose, size, beginning, end, success, failure, secret,
    plan, favourite book
    """
)
HEADS = (
    "What is the {p} of {s}?",
    "Tell me the {p} of {s}.",
    "Name the {p} of {s}.",
    "Which {p} does {s} have?",
    "Describe the {p} of {s}.",
    "What do you know about the {p} of {s}?",
    "Write a sentence about the {p} of {s}.",
    "List every {p} of {s}.",
    "Explain the {p} of {s}.",
    "How would you sum up the {p} of {s}?",
)
VERBS = listed(
    """
    was {s} born, did {s} live, did {s} work, does {s} write, did {s} study, did {s} start, did {s} win,
    did {s} publish, did {s} die, did {s} travel, did {s} earn money, is {s} known, did {s} marry,
    did {s} grow up, does {s} think, did {s} fail, is {s} now
    """
)
WH_WORDS = listed(
    """
    Where, When, In which year, In which town, Which book, Which prize, Which genre, What, Why, How,
    With whom, How often, For whom, In which country, For what, Which job
    """
)
STYLES = (
    "{q}",
    "Please answer: {q}",
    "{q} Answer in one word.",
    "In short: {q}",
    "{q} Explain.",
    "As an expert, {q}",
    "Quick question: {q}",
    "{q} Be honest.",
)
