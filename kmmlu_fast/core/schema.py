"""The frozen records that travel between modules.

Reading this file is knowing the program:

    Question -> (prompts) -> Request -> (engine) -> Response -> (scoring) -> Prediction -> (store) -> parquet

Standard library only; ``prediction_frames`` has the columns of predictions. Log-probabilities are natural
logarithms, in A-D order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

LETTERS = ("A", "B", "C", "D")  # KMMLU's
OPTION_LETTERS = tuple("ABCDEFGHIJ")  # for any question: 2 to 10 options


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One multiple-choice question. The files' 1-based answers become letters once, in ``dataset``."""

    question_id: str  # "<Subject>/<split>/<row>", such as "Accounting/test/17"
    subject: str  # config name
    supercategory: str
    split: str  # train, dev or test
    row: int  # 0-based row in the subject's file of that split
    question: str
    options: tuple[str, ...]  # 2 to 10; KMMLU has 4
    answer: str  # the key's letter, one of ``letters``
    human_accuracy: float | None = None  # 0-1, if the file has it

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options, A first."""
        return OPTION_LETTERS[: len(self.options)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter directory, already checked against its base model (``models.load_adapter``)."""

    name: str  # distinct within a run
    path: Path
    adapter_id: int  # 1-based, distinct within a run (vLLM does not check)
    rank: int
    digest: str  # sha256 of the weights file
    base_model: str | None = None  # base_model_name_or_path, as PEFT wrote it
    prompt_style: str | None = None  # from the adapter's card, if kmmlu_fast trained it
    template_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Wanted: the log-probability of each of these tokens right after the prompt -> ``Response.logprobs``, in
    this order.
    """

    token_ids: tuple[int, ...]

    max_tokens: ClassVar[int] = 1  # an engine generates one token to read them


@dataclass(frozen=True, slots=True)
class Continuation:
    """Wanted: the summed log-probability of the prompt's last ``num_tokens`` (>= 1) tokens ->
    ``Response.logprobs`` = (sum,).
    """

    num_tokens: int

    max_tokens: ClassVar[int] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Wanted: ``num_samples`` texts after the prompt -> ``Response.completions``."""

    max_tokens: int
    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    include_stop: bool = False  # keep the stop string in the text
    stop_ids: tuple[int, ...] = ()  # tokens to stop at besides the model's own
    keep_special: bool = False  # write special tokens into the text too


Want = Candidates | Continuation | Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt for the engine, and what is wanted back."""

    question_id: str
    stage: str  # unique within the question and model state: "letters", "rotation-2/letters", "reason", ...
    token_ids: tuple[int, ...]
    want: Want
    adapter: Adapter | None = None
    carry: Any = None  # a small picklable value for the method's follow_up; engines pass it on unchanged

    @property
    def key(self) -> str:
        return f"{self.question_id}#{self.stage}"


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated text. ``finish_reason`` is "stop" or "length", as vLLM names them."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Response:
    """What the engine returned for a request; ``followed_by`` counts the follow-up requests it caused."""

    request: Request
    logprobs: tuple[float, ...] = ()
    completions: tuple[Completion, ...] = ()
    cached_tokens: int = 0  # prompt tokens served from the prefix cache
    followed_by: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One question's outcome in one run: a row of ``predictions.parquet``, fields as in PREDICTION_SCHEMA."""

    question_id: str
    subject: str
    supercategory: str
    split: str
    row: int
    answer: str
    prediction: str | None  # None = unparsed: counted as wrong, and reported
    correct: bool
    # How the letter was read: "loglikelihood", "continuation", "exact_match", or the extraction rule.
    read_by: str | None
    forced: bool = False  # the letter was forced after the model's own reasoning
    logprob_A: float | None = None
    logprob_B: float | None = None
    logprob_C: float | None = None
    logprob_D: float | None = None
    margin: float | None = None  # best minus second-best letter log-probability, nats
    confidence: float | None = None  # the best letter's softmax share, or agreement among samples
    direct_prediction: str | None = None  # letter of the direct prefill, if chain of thought had one too
    debiased_prediction: str | None = None  # letter by option log-probabilities averaged over rotations
    debiased_logprobs: list[float] | None = None  # one per option, in the question's own order
    sample_predictions: list[str | None] | None = None  # letter of each sample (self-consistency)
    texts: list[str] | None = None  # generated texts, one per sample
    prompt_tokens: int = 0
    output_tokens: int = 0
    prompt_digest: str = ""  # sha256 (16 hex digits) of the first request's token ids
    num_options: int = 4
    option_logprobs: list[float] | None = None  # of all options, A first, if there are more than four
    # Of the letters in both written forms, whichever is scored: " A" and "A"; and their summed probability.
    spaced_logprobs: list[float] | None = None
    bare_logprobs: list[float] | None = None
    spaced_mass: float | None = None
    bare_mass: float | None = None
    sample_tokens: list[int] | None = None  # of each generated text
    # Of the same texts cut after so many tokens and forced to a letter; with several samples, their vote.
    budgets: list[int] | None = None
    budget_predictions: list[str | None] | None = None


LOGPROB_COLUMNS = tuple(f"logprob_{letter}" for letter in LETTERS)
# Written only for questions with other than four options, so that other runs keep their columns.
OPTION_COLUMNS = ("num_options", "option_logprobs")
# Written only by runs that read both forms of the letters; without them the mass is unknown.
FORM_COLUMNS = ("spaced_logprobs", "bare_logprobs", "spaced_mass", "bare_mass")
# Written only by runs that sample or cut their reasoning.
CHAIN_COLUMNS = ("sample_tokens", "budgets", "budget_predictions")
OPTIONAL_COLUMNS = (*OPTION_COLUMNS, *FORM_COLUMNS, *CHAIN_COLUMNS)
