"""The written forms of a letter (" A" and "A"): the mass on each, what each would answer, and how much of a
difference shows in the scored form alone.

In: predictions with both forms' log-probabilities (natural, A first); for pairs, the joined questions. Out:
``FormSummary`` of a run, ``FormSplit`` of a pair, numbers only; None if they are not known. Knows nothing of
words or files.

difference = form + change in either form. "Either" sums a letter's two forms: it is what the run would answer
however it writes the letter. So ``form`` is the part of a difference that shows in the scored form only: of a
base model that writes "A" where " A" is scored, and of an adapter that learned to write " A". It is counted,
question by question, and takes no model of guessing; it is a change of form only if the mass on the scored
form moved. The change in either form is then split into letter habit and the rest as ever (``letter_prior``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.analysis.letter_bias.letter_prior import Decomposition, letter_codes
from kmmlu_fast.analysis.letter_bias.offsets import Letters
from kmmlu_fast.analysis.paired import ALPHA, PairedDifference, mcnemar_midp
from kmmlu_fast.analysis.strata import Codes, Floats, IntervalEstimate, stratified_mean
from kmmlu_fast.core.prediction_frames import logprobs_list
from kmmlu_fast.core.schema import FORM_COLUMNS, LETTERS, OPTION_LETTERS

MIN_KNOWN_SHARE = 0.99  # of the questions must have the forms
LOW_MASS = 0.5  # below it the scored letters are rarely what the model would write
MOVED_MASS = 0.1  # a smaller change of the mass on the scored form is not called a change of form


@dataclass(frozen=True, slots=True)
class FormReading:
    """One way to read the letters: by one written form, or by either."""

    mass: float  # mean probability that the next token is one of these letters, 0-1
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FormSummary:
    """A run's letters in both written forms; a form is None if it is not one token per letter."""

    scored: str  # "lm-eval" (spaced), "bare" or "either"
    questions: int  # with known mass
    spaced: FormReading | None
    bare: FormReading | None
    either: FormReading | None
    differing: float | None  # share of the questions to which the two forms give different letters

    @property
    def readings(self) -> dict[str, FormReading]:
        """The known readings by the form's name."""
        both = {"lm-eval": self.spaced, "bare": self.bare, "either": self.either}
        return {name: reading for name, reading in both.items() if reading is not None}

    @property
    def scored_mass(self) -> float:
        return self.readings[self.scored].mass

    @property
    def is_low(self) -> bool:
        """Whether the scored letters hold less than half of the next token's probability."""
        return self.scored_mass < LOW_MASS

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        both = {"spaced": self.spaced, "bare": self.bare, "either": self.either}
        return {
            "scored": self.scored,
            "questions": self.questions,
            "scored_mass": self.scored_mass,
            **{name: asdict(reading) for name, reading in both.items() if reading is not None},
            "forms_differ": self.differing,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FormSplit:
    """``difference`` = ``form`` + ``either.difference``, second minus first."""

    scored: tuple[str, str]  # the form that each run scored
    mass: tuple[float, float]  # on it
    form: IntervalEstimate
    p_value: float  # McNemar's mid-p of the questions that the scored form alone gains and loses
    either: PairedDifference  # the change if letters are read in either form
    letters: Decomposition | None = None  # of the change in either form; None unless the mass ``moved``

    @property
    def moved(self) -> bool:
        """Whether one run writes the scored form and the other does not, or less."""
        return self.scored[0] != self.scored[1] or abs(self.mass[1] - self.mass[0]) >= MOVED_MASS

    @property
    def significant(self) -> bool:
        """Whether a part of the difference shows in the scored form only, by interval and test."""
        return self.form.significant and self.p_value < ALPHA


@dataclass(frozen=True, slots=True)
class FormArrays:
    """Both forms' log-probabilities, (n, options), -inf for options that a question does not have; NaN rows
    if unknown.
    """

    spaced: Floats
    bare: Floats

    @property
    def either(self) -> Floats:
        return np.logaddexp(self.spaced, self.bare)

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.asarray(~(np.isnan(self.spaced[:, 0]) | np.isnan(self.bare[:, 0])))


def summarise_letter_forms(frame: pl.DataFrame) -> FormSummary | None:
    """A run's mass and accuracy by written form; None if fewer than 99 % of its questions have them."""
    if frame.is_empty() or not set(FORM_COLUMNS) <= set(frame.columns):
        return None
    spaced, bare = (_read_column(frame, f"{name}_logprobs") for name in ("spaced", "bare"))
    known = ~np.isnan(spaced[:, 0]) | ~np.isnan(bare[:, 0])
    if known.mean() < MIN_KNOWN_SHARE:
        return None
    key = letter_codes(frame["answer"], OPTION_LETTERS[: spaced.shape[1]])[known]
    spaced, bare = spaced[known], bare[known]
    both = not (np.isnan(spaced).any() or np.isnan(bare).any())
    differing = float((spaced.argmax(axis=1) != bare.argmax(axis=1)).mean()) if both else None
    return FormSummary(
        scored=_find_scored_form(frame.filter(pl.Series(known.tolist()))),
        questions=int(known.sum()),
        spaced=_summarise_reading(spaced, key),
        bare=_summarise_reading(bare, key),
        either=_summarise_reading(np.logaddexp(spaced, bare), key) if both else None,
        differing=differing,
    )


def _summarise_reading(logprobs: Floats, key: Letters) -> FormReading | None:
    if np.isnan(logprobs).any():
        return None
    mass = np.minimum(np.exp(logprobs).sum(axis=1), 1.0)
    return FormReading(float(mass.mean()), float((logprobs.argmax(axis=1) == key).mean()))


def _find_scored_form(frame: pl.DataFrame) -> str:
    """The form whose log-probabilities are the answer's: by the numbers, so it holds for any run."""
    scored = frame.select(logprobs_list(), "spaced_logprobs", "bare_logprobs")
    for name, column in (("lm-eval", "spaced_logprobs"), ("bare", "bare_logprobs")):
        if (scored["logprobs"] == scored[column]).fill_null(False).all():
            return name
    return "either"


def _read_column(frame: pl.DataFrame, name: str) -> Floats:
    """A column of lists as a matrix: -inf beyond a question's options, NaN rows if it is null."""
    most = int(frame["num_options"].max() or len(LETTERS))  # type: ignore[arg-type]
    column = pl.col(name)
    places = [
        pl.when(column.is_null())
        .then(float("nan"))
        .otherwise(column.list.get(place, null_on_oob=True).fill_null(-float("inf")))
        .alias(str(place))
        for place in range(most)
    ]
    return frame.select(places).to_numpy()


def read_form_arrays(joined: pl.DataFrame, suffix: str = "") -> FormArrays | None:
    """Both forms of one run of a joined frame; None if fewer than 99 % of the questions have them."""
    arrays = FormArrays(*(_read_column(joined, f"{name}_logprobs{suffix}") for name in ("spaced", "bare")))
    return arrays if len(joined) and arrays.known.mean() >= MIN_KNOWN_SHARE else None


def read_either_letters(arrays: FormArrays, letters: Letters) -> Letters:
    """The letters by either form; where the forms are not known, the run's own."""
    safe = np.where(arrays.known[:, None], arrays.either, 0.0)
    return np.where(arrays.known, safe.argmax(axis=1), letters)


def scored_form_of_pair(joined: pl.DataFrame, suffix: str = "") -> tuple[str, float]:
    """The form that one run of a joined frame scored, and the mean mass on it."""
    names = ["num_options", "option_logprobs", *FORM_COLUMNS, *(f"logprob_{letter}" for letter in LETTERS)]
    frame = joined.select(
        pl.col(name if name == "num_options" else f"{name}{suffix}").alias(name) for name in names
    )
    known = frame.filter(pl.col("spaced_mass").is_not_null() & pl.col("bare_mass").is_not_null())
    form = _find_scored_form(known)
    spaced, bare = known["spaced_mass"], known["bare_mass"]
    mass = {"lm-eval": spaced, "bare": bare, "either": (spaced + bare).clip(0, 1)}[form]
    return form, float(mass.mean())  # type: ignore[arg-type]


def estimate_form_part(
    key: Letters,
    scored: tuple[Letters, Letters],
    either: tuple[Letters, Letters],
    strata: Codes,
    weights: Floats | None = None,
    asked: Floats | None = None,
) -> tuple[IntervalEstimate, float]:
    """The part of the difference that shows in the scored form only, and its p. ``scored``, ``either``: both
    runs' letters; ``weights`` and ``asked`` by stratum, as in ``strata.stratified_mean``.
    """
    first, second = (
        (own == key).astype(float) - (summed == key).astype(float)
        for own, summed in zip(scored, either, strict=True)
    )
    change = second - first
    mean = stratified_mean(change, strata, weights, asked)
    p_value = float(mcnemar_midp(int((change < 0).sum()), int((change > 0).sum())))
    return IntervalEstimate(mean.value, *mean.interval()), p_value
