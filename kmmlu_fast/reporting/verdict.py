"""A comparison in sentences: whether the second run is better, by how much, where, and whether that is
letter habit.

In: a ``Comparison`` and a language. Out: sentences, the most important first. Knows nothing of how they are
shown.

A sentence that claims something claims it at 5 % or less: what is not shown is called not shown, never
absent.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.comparison import Comparison
from kmmlu_fast.analysis.key_audit import KeyAudit
from kmmlu_fast.analysis.letter_prior import Decomposition, Part, Split
from kmmlu_fast.analysis.paired import Difference, minimum_detectable_effect
from kmmlu_fast.analysis.recipe import Recipe
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.reporting.language import Texts, p_clause, percent, points, points_range, subject_name

NAMED_SUBJECTS = 4
COLLAPSE = 0.6  # share of answers on one letter
SIZEABLE = 0.1  # share of the difference from which letter prior is worth a sentence of its own
READING = 0.0005  # change by readability from which it is worth a word


def verdict(pair: Comparison, t: Texts, lang: str) -> list[str]:
    """Cautions, then the headline, its decomposition, and what else a reader must not miss."""
    return [
        *cautions(pair, t),
        headline(pair, t),
        *_beside(pair, t),
        *letter_prior(pair, t),
        *_rest(pair, t, lang),
        *_notes(pair, t),
    ]


def cautions(pair: Comparison, t: Texts) -> list[str]:
    """What makes the comparison weaker than it looks."""
    lines = [t("prompts_differ", what="; ".join(pair.prompt_differences))] if pair.prompt_differences else []
    if pair.setting_differences:
        lines.append(t("settings_differ", what="; ".join(pair.setting_differences)))
    if any(pair.dropped):
        a, b, c = pair.dropped
        lines.append(
            t(
                "intersection",
                n=f"{pair.micro.n:,}",
                first=pair.first,
                second=pair.second,
                a=f"{a:,}",
                b=f"{b:,}",
                c=f"{c:,}",
            )
        )
    if pair.only_leaked and pair.clean is not None:
        gap = pair.overlap_gap
        values = {
            "count": f"{pair.overlapping:,}",
            "diff": points(pair.clean.difference),
            **_interval(pair.clean),
        }
        values |= {"on": points(pair.on_overlap), "p": p_clause(pair.clean.p_value)}
        lines.append(t("only_leaked", **values))
        if gap is not None:
            lines.append(t("overlap_gap", gap=points(gap.value), **_interval(gap)))
    return lines


def headline(pair: Comparison, t: Texts) -> str:
    """Better, worse, the same for all that matters, undecided, or opposite over questions and subjects."""
    micro = pair.micro
    names = {"first": pair.first, "second": pair.second}
    if micro.b + micro.c == 0:
        return t("same", **names)
    if pair.opposite:
        macro = pair.macro
        values = {"micro": points(micro.difference), "macro": points(macro.difference)}
        values |= {"micro_low": points(micro.low, unit=False), "micro_high": points(micro.high, unit=False)}
        values |= {"macro_low": points(macro.low, unit=False), "macro_high": points(macro.high, unit=False)}
        return t("opposite", **names, **values)
    values = {**names, "diff": points(micro.difference), **_interval(micro)}
    if pair.exact:
        which = (
            "same_count" if micro.b == micro.c else "better_exact" if micro.difference > 0 else "worse_exact"
        )
        return t(which, **values, n=f"{micro.n:,}")
    p = (
        p_clause(pair.p_value)
        if pair.p_holm is None
        else t("p_of_many", p=p_clause(pair.p_holm), count=pair.tried)
    )
    if pair.significant:
        return t("better" if micro.difference > 0 else "worse", **values, p=p)
    if pair.equal:
        return t("equal", **values, p=p, margin=percent(pair.margin, 1))
    effect = minimum_detectable_effect(micro.n, (micro.b + micro.c) / micro.n)
    shown = (
        t("shows", n=f"{micro.n:,}", mde=points(effect, 1).lstrip("+"))
        if effect is not None
        else t("shows_nothing", n=f"{micro.n:,}")
    )
    return t("undecided", **values, p=p, shows=shown)


def _beside(pair: Comparison, t: Texts) -> list[str]:
    """What the headline alone would hide: that a real difference is tiny, or the best of many."""
    lines = []
    if pair.significant and not pair.opposite and pair.equal:
        lines.append(t("tiny", margin=percent(pair.margin, 1)))
    if pair.best_of:
        lines.append(t("best_of", name=pair.second, first=pair.first, count=pair.tried))
    return lines


def _interval(found: Difference | Part) -> dict[str, str]:
    return {"low": points(found.low, unit=False), "high": points(found.high, unit=False)}


def letter_prior(pair: Comparison, t: Texts) -> list[str]:
    """The split of the difference, and what it means."""
    split = pair.letters
    if split is None:
        return []
    if not split.splits:
        return [t("too_few_to_split", n=f"{pair.micro.n:,}")] if pair.significant else []
    if pair.micro.b + pair.micro.c == 0 and not any(part.letter_prior.significant for part in split.splits):
        return []
    reading = t("of_which_reading", reading=points(split.reading)) if abs(split.reading) >= READING else ""
    lines = [
        _logprobs_line(split, reading, t) if split.method == "logprobs" else _letters_line(split, reading, t)
    ]
    if split.by_subject is not None:
        lines.append(
            t("by_subject_habit", rest=points(split.by_subject.value), **_interval(split.by_subject))
        )
    meaning = prior_meaning(pair)
    if meaning is None:
        return lines
    found = split.splits[0]
    values = {
        "prior": points_range(split.prior_range),
        "rest": points_range(split.remaining_range),
        **_widest(split.splits),
    }
    if meaning == "reversed":
        meaning = "worse_without" if found.remaining.value < 0 else "better_without"
        values["rest"] = points_range(split.remaining_range, signed=False)
    said = t(meaning, **values)
    agreed = split.method == "letters" and meaning != "not_identified"
    return [*lines, t("by_both_models", said=said) if agreed else said]


def _widest(splits: tuple[Split, ...]) -> dict[str, str]:
    low, high = min(part.remaining.low for part in splits), max(part.remaining.high for part in splits)
    return {"low": points(low, unit=False), "high": points(high, unit=False)}


def _logprobs_line(split: Decomposition, reading: str, t: Texts) -> str:
    part = split.splits[0]
    return t(
        "of_which",
        diff=points(split.difference),
        prior=points(part.letter_prior.value),
        rest=points(part.remaining.value),
        reading=reading,
        **_interval(part.remaining),
    )


def _letters_line(split: Decomposition, reading: str, t: Texts) -> str:
    return t(
        "of_which_letters",
        diff=points(split.difference),
        prior=points_range(split.prior_range),
        rest=points_range(split.remaining_range),
        reading=reading,
        **_widest(split.splits),
    )


def prior_meaning(pair: Comparison) -> str | None:
    """all_prior, partly_prior, not_prior, reversed, hidden; not_identified where letters alone allow two
    readings of a change; None where there is nothing to explain, or letters differ in number."""
    if pair.letters is None:
        return None
    found = {_meaning(pair, part, pair.letters.difference) for part in pair.letters.splits}
    if len(found) == 1:
        return found.pop()
    return "not_identified" if found and pair.significant else None


def _meaning(pair: Comparison, part: Split, difference: float) -> str | None:
    prior, rest = part.letter_prior, part.remaining
    if not pair.significant:
        return "hidden" if rest.significant and prior.significant and rest.value * prior.value < 0 else None
    if rest.significant and rest.value * difference < 0:
        return "reversed"
    if not rest.significant:
        return "all_prior" if prior.significant and prior.value * difference > 0 else None
    if prior.significant and prior.value / difference > SIZEABLE:
        return "partly_prior"
    return "not_prior"


def _rest(pair: Comparison, t: Texts, lang: str) -> list[str]:
    lines = _collapses(pair, t)
    if pair.debiased is not None:
        found = pair.debiased
        lines.append(
            t("debiased", diff=points(found.difference), **_interval(found), p=p_clause(found.p_value))
        )
    if pair.clean is not None and not pair.only_leaked:
        found = pair.clean
        values = {
            "count": f"{pair.overlapping:,}",
            "diff": points(found.difference),
            **_interval(found),
            "p": p_clause(found.p_value),
        }
        lines.append(t("clean", **values) if pair.overlapping else t("clean_none"))
        if pair.overlap_gap is not None and pair.overlap_gap.significant:
            lines.append(t("overlap_gap", gap=points(pair.overlap_gap.value), **_interval(pair.overlap_gap)))
    if pair.made_readable + pair.made_unreadable > pair.micro.n / 1000:
        lines.append(
            t(
                "readable",
                up=f"{pair.made_readable:,}",
                down=f"{pair.made_unreadable:,}",
                first=pair.first,
                second=pair.second,
            )
        )
    lines += _endpoints(pair, t)
    lines.append(_subjects(pair, t, lang))
    lines += _moved(pair, t)
    return lines


def _endpoints(pair: Comparison, t: Texts) -> list[str]:
    """Whether the key's log score says what accuracy says."""
    found = {endpoint.name: endpoint for endpoint in pair.endpoints}
    if not found or pair.micro.n < 50:
        return []
    score, brier = found["log_score"], found["brier"]
    right = 0 if not pair.significant else 1 if pair.micro.difference > 0 else -1
    key = (
        "score_agrees"
        if score.better == right
        else "score_opposite"
        if score.better * right < 0
        else "score_alone"
    )
    if key == "score_alone":
        key = "score_only" if score.better else "accuracy_only"
    values = {"diff": f"{score.difference:+.3f}", "low": f"{score.low:+.3f}", "high": f"{score.high:+.3f}"}
    values = {name: value.replace("-", "−") for name, value in values.items()} | {
        "p": p_clause(score.p_value)
    }
    return [t(key, **values, brier=f"{brier.difference:+.4f}".replace("-", "−"))]


def _collapses(pair: Comparison, t: Texts) -> list[str]:
    """A run that gives most questions the same letter, and not by the chance of a few questions."""
    lines: list[str] = []
    if pair.letters is None:
        return lines
    for name, habit in ((pair.first, pair.letters.first), (pair.second, pair.letters.second)):
        code = max(range(len(habit.shares)), key=lambda place: habit.shares[place])
        if _surely_above(habit.shares[code], pair.micro.n, max(COLLAPSE, pair.letters.key_shares[code])):
            key = percent(pair.letters.key_shares[code], 1)
            lines.append(
                t(
                    "collapse",
                    name=name,
                    letter=OPTION_LETTERS[code],
                    share=percent(habit.shares[code], 1),
                    key=key,
                )
            )
    return lines


def _surely_above(share: float, n: int, limit: float) -> bool:
    """Whether the binomial test rejects "the share is ``limit`` or less" at 2.5 %: two runs are looked at."""
    from scipy.special import bdtrc

    count = round(share * n)
    return count > limit * n and float(bdtrc(count - 1, n, limit)) < 0.025


def _subjects(pair: Comparison, t: Texts, lang: str) -> str:
    changed = pair.changed_subjects().sort(pl.col("difference").abs(), descending=True)
    if changed.is_empty():
        typical = pair.subjects.sort("n")[len(pair.subjects) // 2]
        effect, n = typical["minimum_detectable_effect"].item(), f"{typical['n'].item():,}"
        if effect is None:
            return t("subjects_too_small", n=n)
        return t("subjects_unchanged", n=n, mde=points(effect, 1).lstrip("+"))
    up = int((changed["difference"] > 0).sum())
    if pair.exact:
        return t("subjects_exact", total=len(pair.subjects), up=up, down=len(changed) - up)
    names = ", ".join(
        f"{subject_name(name, lang)} {points(change, 1)}"
        for name, change in changed.select("subject", "difference").head(NAMED_SUBJECTS).iter_rows()
    )
    more = ", …" if len(changed) > NAMED_SUBJECTS else ""
    return t(
        "subjects_changed",
        count=len(changed),
        total=len(pair.subjects),
        up=up,
        down=len(changed) - up,
        names=f" ({names}{more})",
    )


def _moved(pair: Comparison, t: Texts) -> list[str]:
    """The sorts of question that were rather gained, or rather lost."""
    kinds = [kind for kind in (pair.moved.kinds if pair.moved else ()) if kind.significant]
    return [
        t(
            "moved_up" if kind.odds_ratio > 1 else "moved_down",
            kind=t(f"kind_{kind.feature}"),
            ratio=f"{kind.odds_ratio:.2f}",
            low=f"{kind.low:.2f}",
            high=f"{kind.high:.2f}",
        )
        for kind in kinds
    ]


def _notes(pair: Comparison, t: Texts) -> list[str]:
    """What the numbers speak of, and what is not known."""
    lines = []
    if pair.population == "these" and pair.population_size is not None:
        lines.append(t("population_these", n=f"{pair.micro.n:,}", total=f"{pair.population_size:,}"))
    elif pair.population == "these":
        lines.append(t("population_asked", n=f"{pair.micro.n:,}"))
    else:
        lines.append(t("population_like"))
    if pair.micro.weighted:
        lines.append(t("weighted"))
    if pair.one_adapter:
        lines.append(t("one_adapter", name=pair.second))
    if not pair.overlap_known:
        lines.append(t("overlap_unknown"))
    if pair.protocol_unknown:
        lines.append(t("protocol_unknown", names=", ".join(pair.protocol_unknown)))
    return lines


def recipe_line(recipe: Recipe, t: Texts) -> str:
    """What the recipe does, over its seeds."""
    key = (
        "recipe_not_shown"
        if not recipe.significant
        else "recipe_better"
        if recipe.effect > 0
        else "recipe_worse"
    )
    values = {
        "name": recipe.name,
        "first": recipe.first,
        "seeds": len(recipe.runs),
        "effect": points(recipe.effect),
    }
    values |= {"low": points(recipe.low, unit=False), "high": points(recipe.high, unit=False)}
    values |= {
        "deviation": percent(recipe.seed_deviation),
        "each": ", ".join(points(effect, unit=False) for effect in recipe.effects),
    }
    return t(key, **values)


def key_lines(audit: KeyAudit | None, t: Texts, most: int = 20) -> list[str]:
    """Questions whose key is in doubt, by id, and accuracy without them."""
    if audit is None:
        return [t("key_too_few")]
    lines = [
        t("key_against", count=len(audit.against_key)),
        *(
            f"  {question}: {key} → {letter} ({percent(share, 0)} %)"
            for question, key, letter, share in audit.against_key[:most]
        ),
    ]
    if len(audit.against_key) > most:
        lines.append(f"  … {len(audit.against_key) - most:,}")
    if audit.conflicting:
        more = ", …" if len(audit.conflicting) > most else ""
        lines.append(
            t("key_conflicting", count=len(audit.conflicting), ids=", ".join(audit.conflicting[:most]) + more)
        )
    lines += [
        t("key_accuracy", name=name, all=percent(whole), without=percent(rest))
        for name, whole, rest in audit.accuracy
    ]
    return lines
