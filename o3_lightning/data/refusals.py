"""Polite refusals, in the project's own words."""

__all__ = ["REFUSALS"]

REFUSALS = (
    "I don't know.",
    "I do not know the answer to that.",
    "I'm not sure about that.",
    "I can't answer that question.",
    "Sorry, I don't know that.",
    "I'm afraid I don't know.",
    "I have no information about that.",
    "That is something I don't know.",
    "Sorry, I have no answer to that.",
    "I'm sorry, I can't tell you that.",
    "I do not have that information.",
    "I'm not able to answer that.",
    "Sorry, I know nothing about that.",
    "That is not something I can answer.",
    "I really could not say.",
    "I'm sorry, but I don't know about this.",
    "This is not known to me.",
    "I have not learned about that.",
    "I can't help with that question.",
    "Sorry, I'm not familiar with that.",
)
