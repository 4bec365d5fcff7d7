"""A comparison in sentences: whether the second run is better, by how much, where, and whether that is letter habit.

In: a ``Comparison`` and a language. Out: sentences, the most important first. Knows nothing of how they are shown.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.comparison import Comparison
from kmmlu_fast.analysis.paired import Difference
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.reporting.language import Texts, p_clause, p_text, percent, points, subject_name

NAMED_SUBJECTS = 4
COLLAPSE = 0.6  # share of answers on one letter
SIZEABLE = 0.1  # share of the difference from which letter prior is worth a sentence of its own


def verdict(pair: Comparison, t: Texts, lang: str) -> list[str]:
    """Cautions, then the headline, its decomposition, and what else a reader must not miss."""
    return [*cautions(pair, t), headline(pair, t), *letter_prior(pair, t), *_rest(pair, t, lang)]


def cautions(pair: Comparison, t: Texts) -> list[str]:
    """What makes the comparison weaker than it looks."""
    lines = [t("prompts_differ", what="; ".join(pair.prompt_differences))] if pair.prompt_differences else []
    if any(pair.dropped):
        a, b, c = pair.dropped
        lines.append(t("intersection", n=f"{pair.micro.n:,}", first=pair.first, second=pair.second, a=f"{a:,}", b=f"{b:,}", c=f"{c:,}"))
    return lines


def headline(pair: Comparison, t: Texts) -> str:
    """Better, worse, or no significant difference."""
    micro = pair.micro
    if micro.b + micro.c == 0:
        return t("same", first=pair.first, second=pair.second)
    values = {"first": pair.first, "second": pair.second, "diff": points(micro.difference), **_interval(micro)}
    if not micro.significant:
        return t("no_difference", **values, p=p_text(micro.p_value))
    return t("better" if micro.difference > 0 else "worse", **values, p=p_clause(micro.p_value))


def _interval(found: Difference) -> dict[str, str]:
    return {"low": points(found.low, unit=False), "high": points(found.high, unit=False)}


def letter_prior(pair: Comparison, t: Texts) -> list[str]:
    """The split of the difference, and what it means."""
    split = pair.letters
    if split is None:
        return []
    if pair.micro.b + pair.micro.c == 0 and not split.letter_prior.significant:
        return []
    key = "of_which" if split.method == "logprobs" else "of_which_marginals"
    prior, rest = points(split.letter_prior.value), points(split.remaining.value)
    line = t(
        key, diff=points(split.difference), prior=prior, rest=rest,
        low=points(split.remaining.low, unit=False), high=points(split.remaining.high, unit=False),
    )  # fmt: skip
    meaning = prior_meaning(pair)
    return [line, *([t(meaning, prior=prior, rest=rest)] if meaning else [])]


def prior_meaning(pair: Comparison) -> str | None:
    """all_prior, partly_prior, not_prior, hidden, or None where there is nothing to explain."""
    split = pair.letters
    if split is None:
        return None
    same_way = split.remaining.value * split.difference > 0
    if not pair.micro.significant:
        return "hidden" if split.remaining.significant and split.letter_prior.significant else None
    if not (split.remaining.significant and same_way):
        return "all_prior" if split.letter_prior.significant else None
    if split.letter_prior.significant and split.letter_prior.value / split.difference > SIZEABLE:
        return "partly_prior"
    return "not_prior"


def _rest(pair: Comparison, t: Texts, lang: str) -> list[str]:
    lines = _collapses(pair, t)
    if pair.opposite:
        lines.append(t("opposite", micro=points(pair.micro.difference), macro=points(pair.macro.difference)))
    if pair.debiased is not None:
        found = pair.debiased
        lines.append(t("debiased", diff=points(found.difference), **_interval(found), p=p_clause(found.p_value)))
    if pair.clean is not None:
        found = pair.clean
        values = {"count": f"{pair.overlapping:,}", "diff": points(found.difference), **_interval(found), "p": p_clause(found.p_value)}
        lines.append(t("clean", **values) if pair.overlapping else t("clean_none"))
    if pair.made_readable + pair.made_unreadable > pair.micro.n / 1000:
        lines.append(t("readable", up=f"{pair.made_readable:,}", down=f"{pair.made_unreadable:,}", first=pair.first, second=pair.second))
    lines.append(_subjects(pair, t, lang))
    return lines


def _collapses(pair: Comparison, t: Texts) -> list[str]:
    """A run that gives most questions the same letter."""
    lines: list[str] = []
    if pair.letters is None:
        return lines
    for name, habit in ((pair.first, pair.letters.first), (pair.second, pair.letters.second)):
        code = max(range(4), key=lambda place: habit.shares[place])
        if habit.shares[code] > COLLAPSE:
            key = percent(pair.letters.key_shares[code], 1)
            lines.append(t("collapse", name=name, letter=LETTERS[code], share=percent(habit.shares[code], 1), key=key))
    return lines


def _subjects(pair: Comparison, t: Texts, lang: str) -> str:
    changed = pair.changed_subjects().sort(pl.col("difference").abs(), descending=True)
    if changed.is_empty():
        typical = pair.subjects.sort("n")[len(pair.subjects) // 2]
        return t("subjects_unchanged", n=f"{typical['n'].item():,}", mde=points(typical["minimum_detectable_effect"].item(), 1).lstrip("+"))
    up = int((changed["difference"] > 0).sum())
    names = ", ".join(
        f"{subject_name(name, lang)} {points(change, 1)}"
        for name, change in changed.select("subject", "difference").head(NAMED_SUBJECTS).iter_rows()
    )
    more = ", …" if len(changed) > NAMED_SUBJECTS else ""
    return t("subjects_changed", count=len(changed), total=len(pair.subjects), up=up, down=len(changed) - up, names=f" ({names}{more})")
