"""Sentences on letter habit: the split of the difference, what it means, and runs that give one letter to
almost every question.

In: a ``PairComparison``, a translator. Out: sentences; their claims hold at 5 % or less. Knows nothing of how
they are shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.reporting.wording.language import (
    Translator,
    format_percent,
    format_points,
    format_points_range,
)

if TYPE_CHECKING:  # eval's summary, which needs one of these sentences, starts without comparisons
    from kmmlu_fast.analysis.comparison import PairComparison
    from kmmlu_fast.analysis.letter_bias.letter_prior import Decomposition, HabitSplit
    from kmmlu_fast.analysis.paired import PairedDifference
    from kmmlu_fast.analysis.strata import IntervalEstimate

COLLAPSE = 0.6  # share of answers on one letter
SIZEABLE = 0.1  # smallest share of the difference for which letter prior gets its own sentence
EXPLAINED = ("all_prior", "all_reading", "all_reading_prior")  # nothing is shown to remain
READING = 0.0005  # smallest change by readability that is mentioned


def interval_values(estimate: PairedDifference | IntervalEstimate) -> dict[str, str]:
    """low and high, as the sentences take them."""
    return _format_interval(estimate.low, estimate.high)


def _format_interval(low: float, high: float) -> dict[str, str]:
    return {"low": format_points(low, unit=False), "high": format_points(high, unit=False)}


def unsigned_interval(low: float, high: float) -> dict[str, str]:
    """low and high of a change whose direction is in words: "lower by 2.1 (1.4 to 2.8)"."""
    ends = sorted(map(abs, (low, high)))
    names = ("low", "high")
    return {name: format_points(end, unit=False).lstrip("+") for name, end in zip(names, ends, strict=True)}


def letter_meaning_line(pair: PairComparison, t: Translator) -> str | None:
    """What letter habit means for the difference, in one sentence; None if there is nothing to say."""
    split = pair.letters
    if split is None or not split.splits:
        return None
    meaning = classify_letter_prior(pair)
    if meaning is None:
        return None
    if meaning == "by_subject_unknown" and split.by_subject is not None:
        rest, own = split.splits[0].remaining.value, split.by_subject.value
        return t(meaning, rest=format_points(rest), own=format_points(own))
    values = {
        "prior": format_points_range(split.prior_range),
        "rest": format_points_range(split.remaining_range),
        "reading": format_points(split.reading),
        **_widest_interval(split.splits),
    }
    if meaning in ("reversed", "hidden"):
        sentence = _opposed_sentence(meaning, split, values, t)
    else:
        sentence = t(meaning, **values)
    if split.method == "letters" and meaning != "not_identified":
        return t("by_both_models", sentence=sentence)
    if split.method == "logprobs" and meaning not in EXPLAINED:
        return t("assuming_one_shift", sentence=sentence)
    return sentence


def reading_line(pair: PairComparison, t: Translator) -> str | None:
    """How much of the change comes from unreadable answers, if that is shown, sizeable, and not said by
    ``letter_meaning_line``.
    """
    split = pair.letters
    if split is None or not pair.significant or not _is_reading_sizeable(split):
        return None
    if classify_letter_prior(pair) in ("all_reading", "all_reading_prior", "reversed"):
        return None
    return t("of_it_reading", reading=format_points(split.reading))


def _is_reading_sizeable(split: Decomposition) -> bool:
    """Whether a significant part of the difference comes from answers that became readable or unreadable."""
    if not split.reading_part.significant or split.reading * split.difference <= 0:
        return False
    return split.reading / split.difference > SIZEABLE


def _opposed_sentence(meaning: str, split: Decomposition, values: dict[str, str], t: Translator) -> str:
    """What is hidden by a change of the opposite sign, and by which."""
    hiding = _hidden_by(split)
    direction = "hidden"
    if meaning == "reversed":
        direction = "worse" if split.splits[0].remaining.value < 0 else "better"
        values = {**values, "rest": format_points_range(split.remaining_range, signed=False)}
        low = min(part.remaining.low for part in split.splits)
        values |= unsigned_interval(low, max(part.remaining.high for part in split.splits))
    return t(f"opposed_{direction}_{hiding}", **values)


def _hidden_by(split: Decomposition) -> str:
    """What hides a change of the opposite sign: "habit", "reading" or "both"."""
    sign = 1 if split.splits[0].remaining.value > 0 else -1
    prior = max(0.0, -sign * sum(part.letter_prior.value for part in split.splits) / len(split.splits))
    reading = max(0.0, -sign * split.reading)
    if reading <= SIZEABLE * (prior + reading):
        return "habit"
    return "reading" if prior <= SIZEABLE * (prior + reading) or prior < reading / 2 else "both"


def letter_split_lines(pair: PairComparison, t: Translator) -> list[str]:
    """The split of the difference, in numbers."""
    split = pair.letters
    if split is None:
        return []
    if not split.splits:
        return [t("too_few_to_split", n=f"{pair.micro.n:,}")] if pair.significant else []
    if pair.micro.b + pair.micro.c == 0 and not any(part.letter_prior.significant for part in split.splits):
        return []
    reading = ""
    if abs(split.reading) >= READING:
        reading = t("of_which_reading", reading=format_points(split.reading))
    split_line = _logprobs_line if split.method == "logprobs" else _letters_line
    lines = [split_line(split, reading, t)]
    by_subject = split.by_subject
    if by_subject is not None:
        rest = format_points(by_subject.value)
        lines.append(t("by_subject_habit", rest=rest, **interval_values(by_subject)))
    return lines


def _widest_interval(splits: tuple[HabitSplit, ...]) -> dict[str, str]:
    low, high = min(part.remaining.low for part in splits), max(part.remaining.high for part in splits)
    return _format_interval(low, high)


def _logprobs_line(split: Decomposition, reading: str, t: Translator) -> str:
    part = split.splits[0]
    return t(
        "of_which",
        diff=format_points(split.difference),
        prior=format_points(part.letter_prior.value),
        rest=format_points(part.remaining.value),
        reading=reading,
        **interval_values(part.remaining),
    )


def _letters_line(split: Decomposition, reading: str, t: Translator) -> str:
    return t(
        "of_which_letters",
        diff=format_points(split.difference),
        prior=format_points_range(split.prior_range),
        rest=format_points_range(split.remaining_range),
        reading=reading,
        **_widest_interval(split.splits),
    )


def classify_letter_prior(pair: PairComparison) -> str | None:
    """all_prior, all_reading, all_reading_prior, partly_prior, not_prior, reversed, hidden; not_identified if
    letters alone allow two readings of a change, by_subject_unknown if habits common to all subjects and each
    subject's own do; None if there is nothing to explain, or letters differ in number.
    """
    split = pair.letters
    if split is None:
        return None
    meanings = {_classify_split(pair, part, split.difference) for part in split.splits}
    if len(meanings) > 1:
        return "not_identified" if pair.significant else None
    if split.by_subject is not None and split.by_subject_prior is not None:
        from kmmlu_fast.analysis.letter_bias.letter_prior import HabitSplit

        own = HabitSplit("by subject", split.by_subject_prior, split.by_subject)
        meanings.add(_classify_split(pair, own, split.difference))
        if len(meanings) > 1:
            return "by_subject_unknown" if pair.significant else None
    return meanings.pop() if meanings else None


def _classify_split(pair: PairComparison, part: HabitSplit, difference: float) -> str | None:
    prior, rest = part.letter_prior, part.remaining
    reading = 0.0 if pair.letters is None else pair.letters.reading
    if not pair.significant:
        opposed = prior.significant and rest.value * prior.value < 0
        unread = pair.letters is not None and pair.letters.reading_part.significant
        return "hidden" if rest.significant and (opposed or (unread and rest.value * reading < 0)) else None
    if rest.significant and rest.value * difference < 0:
        return "reversed"
    if not rest.significant:
        return _classify_explained(pair, part, difference)
    if prior.significant and prior.value / difference > SIZEABLE:
        return "partly_prior"
    return "not_prior"


def _classify_explained(pair: PairComparison, part: HabitSplit, difference: float) -> str | None:
    """What a change comes from of which nothing is shown to remain: habit, reading, or both."""
    prior = part.letter_prior
    by_habit = prior.significant and prior.value * difference > 0
    if pair.letters is None or not _is_reading_sizeable(pair.letters):
        return "all_prior" if by_habit else None
    return "all_reading_prior" if by_habit and prior.value / difference > SIZEABLE else "all_reading"


def letter_collapse_lines(pair: PairComparison, t: Translator) -> list[str]:
    """A sentence for each run that answers most questions with one letter, beyond chance."""
    lines: list[str] = []
    if pair.letters is None:
        return lines
    for name, habit in ((pair.first, pair.letters.first), (pair.second, pair.letters.second)):
        code = max(range(len(habit.shares)), key=lambda place: habit.shares[place])
        share, key_share = habit.shares[code], pair.letters.key_shares[code]
        if _share_significantly_above(share, pair.micro.n, max(COLLAPSE, key_share)):
            shares = {"share": format_percent(share, 1), "key": format_percent(key_share, 1)}
            lines.append(t("collapse", name=name, letter=OPTION_LETTERS[code], **shares))
    return lines


def _share_significantly_above(share: float, n: int, limit: float) -> bool:
    """Whether the binomial test rejects "the share is ``limit`` or less" at 2.5 % (two runs are tested)."""
    from scipy.special import bdtrc

    count = round(share * n)
    return count > limit * n and float(bdtrc(count - 1, n, limit)) < 0.025
