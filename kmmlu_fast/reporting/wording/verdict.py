"""A comparison in sentences: whether the second run is better, by how much, in which subjects, and whether
that is letter habit.

In: a ``PairComparison`` and a translator. Out: sentences, the most important first. Knows nothing of how they
are shown.

Every claim holds at 5 % or less; an effect that is not shown is called "not shown", never "absent".
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.paired import PairedDifference, minimum_detectable_effect
from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points, p_value_clause
from kmmlu_fast.reporting.wording.letter_habit import (
    interval_values,
    letter_collapse_lines,
    letter_prior_lines,
)

NAMED_SUBJECTS = 4


def verdict_lines(pair: PairComparison, t: Translator) -> list[str]:
    """Cautions, the headline, its decomposition, then details and scope."""
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
    lines = []
    if pair.prompt_differences:
        lines.append(t("prompts_differ", what="; ".join(pair.prompt_differences)))
    if pair.setting_differences:
        lines.append(t("settings_differ", what="; ".join(pair.setting_differences)))
    if any(pair.dropped):
        counts = {name: f"{count:,}" for name, count in zip("abc", pair.dropped, strict=True)}
        counts["n"] = f"{pair.micro.n:,}"
        lines.append(t("intersection", first=pair.first, second=pair.second, **counts))
    if pair.only_leaked and pair.clean is not None:
        on_overlap = {"count": f"{pair.overlapping:,}", "on": format_points(pair.on_overlap)}
        lines.append(t("only_leaked", **on_overlap, **_difference_values(pair.clean)))
        gap = pair.overlap_gap
        if gap is not None:
            lines.append(t("overlap_gap", gap=format_points(gap.value), **interval_values(gap)))
    return lines


def _difference_values(difference: PairedDifference) -> dict[str, str]:
    """diff, low, high and p, as the sentences take them."""
    return {
        "diff": format_points(difference.difference),
        "p": p_value_clause(difference.p_value),
        **interval_values(difference),
    }


def headline_sentence(pair: PairComparison, t: Translator) -> str:
    """Better, worse, equal within the margin, undecided, or opposite over questions and subjects."""
    micro = pair.micro
    names = {"first": pair.first, "second": pair.second}
    if micro.b + micro.c == 0:
        return t("same", **names)
    if pair.micro_macro_opposed:
        macro = pair.macro
        return t(
            "opposite",
            **names,
            micro=format_points(micro.difference),
            micro_low=format_points(micro.low, unit=False),
            micro_high=format_points(micro.high, unit=False),
            macro=format_points(macro.difference),
            macro_low=format_points(macro.low, unit=False),
            macro_high=format_points(macro.high, unit=False),
        )
    n = f"{micro.n:,}"
    values = {**names, "diff": format_points(micro.difference), **interval_values(micro)}
    if pair.exact:
        if micro.b == micro.c:
            return t("same_count", **values, n=n)
        return t("better_exact" if micro.difference > 0 else "worse_exact", **values, n=n)
    if pair.p_holm is None:
        p = p_value_clause(pair.p_value)
    else:
        p = t("p_of_many", p=p_value_clause(pair.p_holm), count=pair.tried)
    if pair.significant:
        return t("better" if micro.difference > 0 else "worse", **values, p=p)
    if pair.equal:
        return t("equal", **values, p=p, margin=format_percent(pair.margin, 1))
    effect = minimum_detectable_effect(micro.n, (micro.b + micro.c) / micro.n)
    if effect is None:
        shows = t("shows_nothing", n=n)
    else:
        shows = t("shows", n=n, mde=format_points(effect, 1).lstrip("+"))
    return t("undecided", **values, p=p, shows=shows)


def _headline_caveats(pair: PairComparison, t: Translator) -> list[str]:
    """What the headline alone would hide: a real difference may be tiny, or the best of many."""
    lines = []
    if pair.significant and not pair.micro_macro_opposed and pair.equal:
        lines.append(t("tiny", margin=format_percent(pair.margin, 1)))
    if pair.best_of:
        lines.append(t("best_of", name=pair.second, first=pair.first, count=pair.tried))
    return lines


def _detail_lines(pair: PairComparison, t: Translator) -> list[str]:
    lines = letter_collapse_lines(pair, t)
    if pair.debiased is not None:
        lines.append(t("debiased", **_difference_values(pair.debiased)))
    if pair.clean is not None and not pair.only_leaked:
        if pair.overlapping:
            lines.append(t("clean", count=f"{pair.overlapping:,}", **_difference_values(pair.clean)))
        else:
            lines.append(t("clean_none"))
        gap = pair.overlap_gap
        if gap is not None and gap.significant:
            lines.append(t("overlap_gap", gap=format_points(gap.value), **interval_values(gap)))
    if pair.made_readable + pair.made_unreadable > pair.micro.n / 1000:
        counts = {"up": f"{pair.made_readable:,}", "down": f"{pair.made_unreadable:,}"}
        lines.append(t("readable", first=pair.first, second=pair.second, **counts))
    return [*lines, *_log_score_lines(pair, t), _subjects_sentence(pair, t), *_gained_lost_lines(pair, t)]


def _log_score_lines(pair: PairComparison, t: Translator) -> list[str]:
    """Whether the key's log score agrees with accuracy."""
    endpoints = {endpoint.name: endpoint for endpoint in pair.endpoints}
    if not endpoints or pair.micro.n < 50:
        return []
    score, brier = endpoints["log_score"], endpoints["brier"]
    direction = 0
    if pair.significant:
        direction = 1 if pair.micro.difference > 0 else -1
    if score.better == direction:
        key = "score_agrees"
    elif score.better * direction < 0:
        key = "score_opposite"
    else:
        key = "score_only" if score.better else "accuracy_only"
    values = {
        "diff": f"{score.difference:+.3f}",
        "low": f"{score.low:+.3f}",
        "high": f"{score.high:+.3f}",
        "brier": f"{brier.difference:+.4f}",
    }
    values = {name: value.replace("-", "−") for name, value in values.items()}
    return [t(key, **values, p=p_value_clause(score.p_value))]


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
    counts = {"count": len(changed), "total": len(pair.subjects), "up": up, "down": len(changed) - up}
    return t("subjects_changed", **counts, names=f" ({names}{more})")


def _gained_lost_lines(pair: PairComparison, t: Translator) -> list[str]:
    """The kinds of question on which gains, or losses, concentrate."""
    lines = []
    for kind in pair.moved.kinds if pair.moved else ():
        if kind.significant:
            key = "moved_up" if kind.odds_ratio > 1 else "moved_down"
            numbers = {
                "ratio": f"{kind.odds_ratio:.2f}",
                "low": f"{kind.low:.2f}",
                "high": f"{kind.high:.2f}",
            }
            lines.append(t(key, kind=t(f"kind_{kind.feature}"), **numbers))
    return lines


def _scope_notes(pair: PairComparison, t: Translator) -> list[str]:
    """What the numbers refer to, and what is unknown."""
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
