"""The numbers of a run: the one typed form of metrics.json and prefix.json.

In: a JSON document, or what an evaluation has counted. Out: frozen records, or RunError that names the first
value that no evaluation writes. A metric that only some runs have is None where it is absent; keys that are
not known here, which another version may add, are kept. Knows nothing of how a number is computed or shown.

Shares and accuracies are 0-1, times in seconds, log-probabilities in nats. To add a metric: a field here, and
the line that computes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line

_OVERWRITE = "run eval with --overwrite"


class _Record(BaseModel):
    # built when first used: most are parts of another one
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False, defer_build=True)

    def to_json(self) -> dict[str, Any]:
        """What was given, as JSON-able values; what was not given is left out."""
        return self.model_dump(exclude_unset=True)


class Score(_Record):
    """Accuracy of some questions. ``accuracy`` is None only where there are none."""

    accuracy: float | None
    stderr: float | None = None
    ci_low: float | None = None  # Wilson, 95 %
    ci_high: float | None = None
    correct: int | None = None


class SubjectScore(Score):
    """Accuracy of a subject or supercategory."""

    total: int
    unparsed: int = 0


class ConstantAnswer(_Record):
    letter: str | None
    accuracy: float | None


class Baselines(_Record):
    """What answers without knowledge score; also ``always_A``, ``always_B``, ..."""

    best_constant: ConstantAnswer
    subject_majority: float | None
    uniform: float


class Speed(_Record):
    """The pass that finished the run; ``questions_before`` were answered in earlier ones."""

    questions: int = Field(0, ge=0)
    seconds: float = Field(0.0, ge=0)
    questions_per_sec: float = Field(0.0, ge=0)
    prompt_tokens_per_sec: float = Field(0.0, ge=0)
    output_tokens_per_sec: float = Field(0.0, ge=0)
    questions_before: int = Field(0, ge=0)


class FullPass(_Record):
    """Questions of the whole exam, and its seconds at the measured rate (None if nothing was asked)."""

    questions: int = Field(0, ge=0)
    seconds: float | None = Field(None, ge=0)


class EngineCounters(_Record):
    """What the engine counted; each engine adds its own."""

    start_sec: float = Field(0.0, ge=0)
    prefix_cache_hit_rate: float = Field(0.0, ge=0)


class AdapterShift(_Record):
    """How far the adapter moved the probes' log-probabilities."""

    largest_nats: float
    mean_nats: float | None = None
    probes: int | None = None


class ReadBy(_Record):
    """How answers were read from texts: counts."""

    strict: int
    lenient: int
    forced: int
    unparsed: int
    direct: int


class Way(_Record):
    """One way to answer the same questions, its accuracy and cost."""

    way: Literal["direct", "budgeted", "what_if", "full", "full_unforced"]
    below: float | None
    accuracy: float
    reasoned: int
    output_tokens: int
    seconds: float | None
    estimated: bool
    correct: int | None = None


class AverageAccuracy(_Record):
    """avg@k, k = ``samples``: its intervals for questions like these, and for these sampled anew."""

    samples: int
    questions: int
    accuracy: float
    low: float
    high: float
    sampling_low: float | None = None
    sampling_high: float | None = None
    question_variance: float | None = None
    sampling_variance: float | None = None
    sampling_share: float | None = None


class StoppedVotes(_Record):
    """What --vote-stopping would have spared of samples that were all drawn."""

    rule: Literal["exact", "likely"]
    samples: float  # drawn per question
    tokens: float | None  # share of all generated tokens
    accuracy: float
    changed: int  # questions with another vote


class SampleSummary(_Record):
    num_samples: int
    accuracy_first_sample: float
    accuracy_majority: float
    accuracy_any_sample: float
    agreement: float
    average: AverageAccuracy | None = None
    drawn: float | None = None  # samples per question, if votes stopped them
    stopping: list[StoppedVotes] = []


class BudgetScore(_Record):
    """The same texts cut after ``budget`` tokens (None: whole) and forced; minus the whole ones."""

    budget: int | None
    accuracy: float
    ci_low: float
    ci_high: float
    cut: float
    tokens: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_holm: float | None = None
    significant: bool = False


class RotationSummary(_Record):
    accuracy_raw: float
    accuracy_debiased: float
    changed: int
    letter_share_raw: dict[str, float]
    letter_share_debiased: dict[str, float]
    letter_share_answer: dict[str, float]


class Reasoning(_Record):
    """What reasoning, samples and rotations gained and cost; parts that a run does not have are None."""

    read_by: ReadBy | None = None
    rungs: dict[str, int] = {}
    ways: list[Way] = []
    samples: SampleSummary | None = None
    rotations: RotationSummary | None = None
    budgets: list[BudgetScore] = []


class FormScore(_Record):
    """The letters read in one written form, or in either."""

    mass: float = Field(ge=0, le=1)  # mean probability that the next token is one of these letters
    accuracy: float = Field(ge=0, le=1)


class LetterForms(_Record):
    """The letters' two written forms: " A" (spaced, lm-eval's) and "A"; a form that is not known is None."""

    scored: Literal["lm-eval", "bare", "either"]
    questions: int = Field(ge=0)
    scored_mass: float = Field(ge=0, le=1)
    spaced: FormScore | None = None
    bare: FormScore | None = None
    either: FormScore | None = None
    forms_differ: float | None = None  # share of questions to which the forms give different letters


class PassMetrics(_Record):
    """What a pass leaves, whether it reached all questions or stopped early."""

    notes: list[str] = []
    speed: Speed | None = None
    engine: EngineCounters | None = None
    adapter_shift: AdapterShift | None = None
    adapter_mode: str | None = None
    decision: dict[str, Any] | None = None  # ``analysis.sequential.betting.Decision``
    full_pass: FullPass | None = None
    ahead: Any = None  # whether the base was complete before the adapter's questions were drawn
    race: dict[str, Any] | None = None  # best, lost_to


class PrefixMetrics(PassMetrics):
    """``prefix.json``: the first ``questions`` of a random order of ``total``."""

    seed: int = Field(ge=0)
    total: int = Field(ge=0)
    questions: int = Field(ge=0)
    order: str | None = None  # "uniform" or "adaptive"
    accuracy: list[float] = Field(min_length=2, max_length=2)  # an interval

    @model_validator(mode="after")
    def _check_interval(self) -> Self:
        low, high = self.accuracy
        if not 0 <= low <= high <= 1:
            raise ValueError("accuracy is not an interval of shares")
        return self


class Metrics(PassMetrics):
    """``metrics.json``: the numbers of a complete run. A run read from another program's files has none."""

    num_questions: int | None = None
    micro: Score | None = None
    macro: Score | None = None
    subjects: dict[str, SubjectScore] = {}
    supercategories: dict[str, SubjectScore] = {}
    baselines: Baselines | None = None
    unparsed: int | None = None
    forced: int | None = None
    answer_letter_share: dict[str, float | None] = {}
    predicted_letter_share: dict[str, float | None] = {}
    recall: dict[str, float | None] = {}
    balanced_accuracy: float | None = None
    accuracy_debiased: float | None = None
    accuracy_without_forced: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    exact_ties: int | None = None
    letter_forms: LetterForms | None = None
    reasoning: Reasoning | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.forced and self.accuracy_without_forced is None:
            raise ValueError("lacks accuracy_without_forced")
        if self.num_questions:
            scores = {"micro": self.micro, "macro": self.macro, **self.subjects, **self.supercategories}
            for name, score in scores.items():
                if score is not None and score.accuracy is None:
                    raise ValueError(f"accuracy of {name} is null")
        for name in ("predicted_letter_share", "recall"):
            given = getattr(self, name)
            if given and (missing := self.answer_letter_share.keys() - given.keys()):
                raise ValueError(f"{name} lacks {min(missing)!r}")
        return self

    def add_parts(self, **parts: Any) -> Metrics:
        """These metrics and ``parts``, checked."""
        return Metrics.model_validate({**self.to_json(), **parts})


class SummaryMetrics(Metrics):
    """Metrics with everything that a finished evaluation's summary shows."""

    num_questions: int
    micro: Score
    macro: Score
    subjects: dict[str, SubjectScore]
    supercategories: dict[str, SubjectScore]
    baselines: Baselines
    unparsed: int
    answer_letter_share: dict[str, float | None]
    predicted_letter_share: dict[str, float | None]
    recall: dict[str, float | None]
    speed: Speed
    engine: EngineCounters


_M = TypeVar("_M", bound=_Record)


def parse_metrics(document: Any, path: Path, kind: type[_M]) -> _M:
    """``document`` as ``kind``. RunError names the file and the first value that is wrong."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = one_line(": ".join(map(str, first["loc"])), 200)
        why = one_line(first["msg"].removeprefix("Value error, "), 200)
        if first["type"] == "missing":
            why = f"lacks {where}"
        elif where:
            why = f"{where} is {bounded_repr(first['input'])} ({why})"
        raise RunError(f"{path}: {why}; {_OVERWRITE}") from error


def require_summary(metrics: Metrics, path: Path) -> SummaryMetrics:
    """The metrics of a finished evaluation. RunError names the first that is missing or invalid."""
    return parse_metrics(metrics.to_json(), path, SummaryMetrics)
