"""Do two engines give the same letters for the same questions? (``doctor --verify MODEL``)

In: a config, or two sets of log-probabilities. Out: a ``Verification``, as numbers and as lines of text. The
reference is the plain forward pass of the transformers engine; vLLM is verified against it. Knows nothing of
how either computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.letters import argmax_index, logprob_margin
from kmmlu_fast.core.schema import OPTION_LETTERS, Prediction
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.evaluation import runner
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plan
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.prompting.predictions import prediction_logprobs
from kmmlu_fast.prompting.tokens import TokenisedQuestion

QUESTIONS = 64
# Nats below which rounding may choose between two letters: bfloat16 logits from 16 to 32 step by 0.125.
NEAR_TIE_32_BIT = 0.01
NEAR_TIE_16_BIT = 0.25

Scores = Mapping[str, Sequence[float]]  # natural-log probabilities of A-D by question id


@dataclass(frozen=True, slots=True)
class LetterDifference:
    """A question to which the two engines give different letters."""

    question_id: str
    reference: str
    verified: str
    margin: float  # nats, of the reference's letter over its second


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How well two engines agree on the same prompts. Differences of log-probabilities in nats."""

    questions: int
    same_letters: int
    largest_nats: float
    mean_nats: float
    near_tie_nats: float
    differences: list[LetterDifference]  # largest margin first
    seconds: tuple[float, float] | None = None  # reference, verified; answering only, without the start

    @property
    def beyond_near_ties(self) -> list[LetterDifference]:
        return [each for each in self.differences if not each.margin < self.near_tie_nats]

    @property
    def passed(self) -> bool:
        """Whether letters differ only in near ties and all numbers are finite."""
        return math.isfinite(self.largest_nats) and not self.beyond_near_ties

    def to_json(self) -> dict[str, Any]:
        """The fields, and whether it passed; a number that is not finite becomes null."""
        values = {**asdict(self), "passed": self.passed}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

    def lines(self) -> list[str]:
        """Lines for a terminal, the verdict first."""
        ties = len(self.differences) - len(self.beyond_near_ties)
        verdict = "passed" if self.passed else "failed"
        near_ties = f", {ties} differ in near ties (below {self.near_tie_nats:g} nats)" if ties else ""
        lines = [
            f"{verdict}: {self.same_letters} of {self.questions} letters are the same{near_ties}",
            f"they differ by {self.largest_nats:.2g} nats at most, {self.mean_nats:.2g} on average",
        ]
        if self.seconds is not None:
            lines.append("transformers answered in {:.1f} s, vLLM in {:.1f} s".format(*self.seconds))
        return lines + [
            f"{d.question_id}: transformers {d.reference}, vLLM {d.verified}, {d.margin:.3f} nats apart"
            for d in self.beyond_near_ties[:5]
        ]


def compare_engine_scores(reference: Scores, verified: Scores, near_tie_nats: float) -> Verification:
    """Compare letters and log-probabilities. EngineError if the two did not answer the same questions."""
    if not reference or set(reference) != set(verified):
        raise EngineError(
            f"{len(reference)} and {len(verified)} questions were answered, and not the same ones"
        )
    shifts, differences, same = [], [], 0
    for question_id, scores in reference.items():
        others = verified[question_id]
        shifts += [abs(a - b) for a, b in zip(scores, others, strict=True)]
        one, two = _best_letter(scores), _best_letter(others)
        if one == two:
            same += 1
        else:
            differences.append(LetterDifference(question_id, one, two, _letter_margin(scores)))
    differences.sort(key=lambda difference: -difference.margin)
    return Verification(
        questions=len(reference),
        same_letters=same,
        largest_nats=max(shifts) if all(map(math.isfinite, shifts)) else math.nan,  # max may skip a NaN
        mean_nats=sum(shifts) / len(shifts),
        near_tie_nats=near_tie_nats,
        differences=differences,
    )


def _best_letter(scores: Sequence[float]) -> str:
    """The best letter; "none" if a number is NaN, which ``read_letters`` refuses but a comparison shows."""
    return "none" if any(map(math.isnan, scores)) else OPTION_LETTERS[argmax_index(scores)]


def _letter_margin(scores: Sequence[float]) -> float:
    """Best minus second-best in nats; infinite if a number is NaN, so that it is not a near tie."""
    return math.inf if any(map(math.isnan, scores)) else logprob_margin(scores)


def verify_engines(config: EvalConfig, questions: int = QUESTIONS) -> Verification:
    """Ask ``questions`` of the config's questions with vLLM, then with transformers; one engine at a time.

    Uses the config's model, data and prompts, but not its engine. EngineError if one of the two cannot serve
    the model: a quantised repository, for example, runs in only one of them.
    """
    from kmmlu_fast.engines import factory

    require_modules("comparing engines", "vllm", "transformers", "torch", "accelerate")
    plan = make_eval_plan(config)
    step = max(1.0, len(plan.asked) / questions)
    chosen = [plan.asked[int(place * step)] for place in range(min(questions, len(plan.asked)))]
    results = []
    try:
        for name in ("vllm", "transformers"):
            log_note(f"verify: asking {len(chosen)} questions with {name}")
            own = plan.config.model_copy(update={"engine": name})
            engine = factory.open_engine(own, plan.model, [], plan.max_model_len)
            try:
                results.append(_ask_engine(engine, plan, chosen, name))
            finally:
                engine.close()
    finally:
        plan.close()
    (verified, vllm_sec), (reference, transformers_sec) = results
    near_tie = NEAR_TIE_32_BIT if plan.config.dtype == "float32" else NEAR_TIE_16_BIT
    return replace(compare_engine_scores(reference, verified, near_tie), seconds=(transformers_sec, vllm_sec))


def _ask_engine(
    engine: Engine, plan: EvalPlan, chosen: Sequence[TokenisedQuestion], name: str
) -> tuple[Scores, float]:
    sink = LetterSink()
    speed = runner.ask_questions(engine, chosen, plan.method, None, sink, name)
    return sink.scores, float(speed["seconds"])


class LetterSink:
    """A sink that keeps the letters' log-probabilities."""

    def __init__(self) -> None:
        self.scores: dict[str, tuple[float, ...]] = {}

    def append(self, prediction: Prediction) -> None:
        self.scores[prediction.question_id] = tuple(prediction_logprobs(prediction))
