"""A comparison in sentences: whether the second run is better, by how much, where, and whether that is
letter habit.

In: a ``Comparison`` and a language. Out: sentences, the most important first. Knows nothing of how they are
shown.

A sentence that claims something claims it at 5 % or less: what is not shown is called not shown, never
absent.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.paired import minimum_detectable_effect
from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points, p_value_clause
from kmmlu_fast.reporting.wording.letter_habit import (
    interval_values,
    letter_collapse_lines,
    letter_prior_lines,
)

NAMED_SUBJECTS = 4


def verdict_lines(pair: PairComparison, t: Translator) -> list[str]:
    """Cautions, then the headline, its decomposition, and what else a reader must not miss."""
    return [
        *caution_lines(pair, t),
        headline_sentence(pair, t),
        *_headline_caveats(pair, t),
        *letter_prior_lines(pair, t),
        *_detail_lines(pair, t),
        *_scope_notes(pair, t),
    ]


def caution_lines(pair: PairComparison, t: Translator) -> list[str]:
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
            "diff": format_points(pair.clean.difference),
            **interval_values(pair.clean),
        }
        values |= {"on": format_points(pair.on_overlap), "p": p_value_clause(pair.clean.p_value)}
        lines.append(t("only_leaked", **values))
        if gap is not None:
            lines.append(t("overlap_gap", gap=format_points(gap.value), **interval_values(gap)))
    return lines


def headline_sentence(pair: PairComparison, t: Translator) -> str:
    """Better, worse, the same for all that matters, undecided, or opposite over questions and subjects."""
    micro = pair.micro
    names = {"first": pair.first, "second": pair.second}
    if micro.b + micro.c == 0:
        return t("same", **names)
    if pair.micro_macro_opposed:
        macro = pair.macro
        values = {"micro": format_points(micro.difference), "macro": format_points(macro.difference)}
        values |= {
            "micro_low": format_points(micro.low, unit=False),
            "micro_high": format_points(micro.high, unit=False),
        }
        values |= {
            "macro_low": format_points(macro.low, unit=False),
            "macro_high": format_points(macro.high, unit=False),
        }
        return t("opposite", **names, **values)
    values = {**names, "diff": format_points(micro.difference), **interval_values(micro)}
    if pair.exact:
        which = (
            "same_count" if micro.b == micro.c else "better_exact" if micro.difference > 0 else "worse_exact"
        )
        return t(which, **values, n=f"{micro.n:,}")
    p = (
        p_value_clause(pair.p_value)
        if pair.p_holm is None
        else t("p_of_many", p=p_value_clause(pair.p_holm), count=pair.tried)
    )
    if pair.significant:
        return t("better" if micro.difference > 0 else "worse", **values, p=p)
    if pair.equal:
        return t("equal", **values, p=p, margin=format_percent(pair.margin, 1))
    effect = minimum_detectable_effect(micro.n, (micro.b + micro.c) / micro.n)
    shown = (
        t("shows", n=f"{micro.n:,}", mde=format_points(effect, 1).lstrip("+"))
        if effect is not None
        else t("shows_nothing", n=f"{micro.n:,}")
    )
    return t("undecided", **values, p=p, shows=shown)


def _headline_caveats(pair: PairComparison, t: Translator) -> list[str]:
    """What the headline alone would hide: that a real difference is tiny, or the best of many."""
    lines = []
    if pair.significant and not pair.micro_macro_opposed and pair.equal:
        lines.append(t("tiny", margin=format_percent(pair.margin, 1)))
    if pair.best_of:
        lines.append(t("best_of", name=pair.second, first=pair.first, count=pair.tried))
    return lines


def _detail_lines(pair: PairComparison, t: Translator) -> list[str]:
    lines = letter_collapse_lines(pair, t)
    if pair.debiased is not None:
        found = pair.debiased
        lines.append(
            t(
                "debiased",
                diff=format_points(found.difference),
                **interval_values(found),
                p=p_value_clause(found.p_value),
            )
        )
    if pair.clean is not None and not pair.only_leaked:
        found = pair.clean
        values = {
            "count": f"{pair.overlapping:,}",
            "diff": format_points(found.difference),
            **interval_values(found),
            "p": p_value_clause(found.p_value),
        }
        lines.append(t("clean", **values) if pair.overlapping else t("clean_none"))
        if pair.overlap_gap is not None and pair.overlap_gap.significant:
            lines.append(
                t(
                    "overlap_gap",
                    gap=format_points(pair.overlap_gap.value),
                    **interval_values(pair.overlap_gap),
                )
            )
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
    lines += _log_score_lines(pair, t)
    lines.append(_subjects_sentence(pair, t))
    lines += _gained_lost_lines(pair, t)
    return lines


def _log_score_lines(pair: PairComparison, t: Translator) -> list[str]:
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
        "p": p_value_clause(score.p_value)
    }
    return [t(key, **values, brier=f"{brier.difference:+.4f}".replace("-", "−"))]


def _subjects_sentence(pair: PairComparison, t: Translator) -> str:
    changed = pair.changed_subjects().sort(pl.col("difference").abs(), descending=True)
    if changed.is_empty():
        typical = pair.subjects.sort("n")[len(pair.subjects) // 2]
        effect, n = typical["minimum_detectable_effect"].item(), f"{typical['n'].item():,}"
        if effect is None:
            return t("subjects_too_small", n=n)
        return t("subjects_unchanged", n=n, mde=format_points(effect, 1).lstrip("+"))
    up = int((changed["difference"] > 0).sum())
    if pair.exact:
        return t("subjects_exact", total=len(pair.subjects), up=up, down=len(changed) - up)
    names = ", ".join(
        f"{t.subject(name)} {format_points(change, 1)}"
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


def _gained_lost_lines(pair: PairComparison, t: Translator) -> list[str]:
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


def _scope_notes(pair: PairComparison, t: Translator) -> list[str]:
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
