"""A comparison in sentences: whether the second run is better, by how much, in which subjects, and whether
that is letter habit.

In: a ``PairComparison`` and a translator. Out: sentences, the most important first: cautions, the headline,
at most three plain sentences, details. Knows nothing of how they are shown.

Every claim holds at 5 % or less; an effect that is not shown is called "not shown", never "absent".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.headline_comparison import HeadlineComparison
from kmmlu_fast.analysis.paired import PairedDifference
from kmmlu_fast.analysis.planning import questions_for_effect
from kmmlu_fast.reporting.wording.form_text import (
    form_detail_lines,
    form_meaning_line,
    habit_pair,
    low_mass_cautions,
)
from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points, p_value_clause
from kmmlu_fast.reporting.wording.letter_habit import (
    interval_values,
    letter_collapse_lines,
    letter_meaning_line,
    letter_split_lines,
)

NAMED_SUBJECTS = 4
MOST_SENTENCES = 3  # after the headline; everything else is a detail


@dataclass(frozen=True, slots=True)
class Verdict:
    """A comparison in words."""

    cautions: tuple[str, ...]
    headline: str
    sentences: tuple[str, ...]  # the most important, at most MOST_SENTENCES
    details: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """All of it, the most important first."""
        return [*self.cautions, self.headline, *self.sentences, *self.details]


def word_verdict(pair: PairComparison, t: Translator) -> Verdict:
    """The comparison in sentences."""
    form, meaning = form_meaning_line(pair, t), _habit_sentence(pair, t)
    gap, clean = _overlap_lines(pair, t)
    candidates = [
        *_headline_caveats(pair, t),
        *([form] if form else []),
        *([meaning] if meaning else []),
        *gap,
        _subjects_sentence(pair, t),
        *_score_contradiction(pair, t),
    ]
    return Verdict(
        cautions=tuple(caution_lines(pair, t)),
        headline=headline_sentence(pair, t),
        sentences=tuple(candidates[:MOST_SENTENCES]),
        details=(
            *candidates[MOST_SENTENCES:],
            *form_detail_lines(pair, t),
            *_habit_lines(pair, t),
            *letter_collapse_lines(pair, t),
            *clean,
            *_detail_lines(pair, t),
            *_scope_notes(pair, t),
        ),
    )


def _habit_sentence(pair: PairComparison, t: Translator) -> str | None:
    """What letter habit means for the difference; if the written form moved, for the change in either."""
    spoken_of = habit_pair(pair)
    sentence = letter_meaning_line(spoken_of, t) if spoken_of else None
    return t("in_either_form", sentence=sentence) if sentence and spoken_of is not pair else sentence


def _habit_lines(pair: PairComparison, t: Translator) -> list[str]:
    """The letter split in numbers, of the same difference."""
    spoken_of = habit_pair(pair)
    if spoken_of is None or spoken_of is pair:
        return letter_split_lines(pair, t)
    return [t("in_either_form", sentence=line) for line in letter_split_lines(spoken_of, t)]


def verdict_lines(pair: PairComparison, t: Translator) -> list[str]:
    """``word_verdict`` as lines."""
    return word_verdict(pair, t).lines


def caution_lines(pair: HeadlineComparison, t: Translator) -> list[str]:
    """What makes the comparison weaker than it looks."""
    lines = circumstance_cautions(pair.prompt_differences, pair.setting_differences, t)
    if isinstance(pair, PairComparison):
        lines += low_mass_cautions(pair, t)
    if any(pair.dropped):
        counts = {name: f"{count:,}" for name, count in zip("abc", pair.dropped, strict=True)}
        counts["n"] = f"{pair.micro.n:,}"
        lines.append(t("intersection", first=pair.first, second=pair.second, **counts))
    if pair.only_leaked and pair.clean is not None:
        on_overlap = {"count": f"{pair.overlapping:,}", "on": format_points(pair.on_overlap)}
        lines.append(t("only_leaked", **on_overlap, **_difference_values(pair.clean)))
    return lines


def circumstance_cautions(prompts: Sequence[str], settings: Sequence[str], t: Translator) -> list[str]:
    """How differently two runs were made, besides the model state."""
    lines = []
    if prompts:
        lines.append(t("prompts_differ", what="; ".join(prompts)))
    if settings:
        lines.append(t("settings_differ", what="; ".join(settings)))
    return lines


def unknown_notes(overlap_known: bool, protocol_unknown: Sequence[str], t: Translator) -> list[str]:
    """What is not known about the comparison."""
    lines = [] if overlap_known else [t("overlap_unknown")]
    if protocol_unknown:
        lines.append(t("protocol_unknown", names=", ".join(protocol_unknown)))
    return lines


def _difference_values(difference: PairedDifference) -> dict[str, str]:
    """diff, low, high and p, as the sentences take them."""
    return {
        "diff": format_points(difference.difference),
        "p": p_value_clause(difference.p_value),
        **interval_values(difference),
    }


def headline_sentence(pair: HeadlineComparison, t: Translator) -> str:
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
        key = "p_of_many" if pair.tried > 1 else "p_of_first"
        p = t(key, p=p_value_clause(pair.p_holm), count=pair.tried)
    if pair.significant:
        return t("better" if micro.difference > 0 else "worse", **values, p=p)
    if pair.equal:
        return t("equal", **values, p=p, margin=format_percent(pair.margin, 1))
    effect = micro.detectable_effect(pair.alpha) if micro.n >= 20 else None
    if effect is None:
        shows = t("shows_nothing", n=n)
    else:
        shows = t("shows", n=n, mde=format_points(effect, 1).lstrip("+"))
        if 0 < pair.margin < effect:
            needed = questions_for_effect(micro.n, effect, pair.margin)
            shows = t(
                "shows_needed", shows=shows, margin=format_percent(pair.margin, 1), needed=f"{needed:,}"
            )
    return t("undecided", **values, p=p, shows=shows)


def _headline_caveats(pair: PairComparison, t: Translator) -> list[str]:
    """What the headline alone would hide: a real difference may be tiny, or the best of many."""
    lines = []
    if pair.significant and not pair.micro_macro_opposed and pair.equal:
        lines.append(t("tiny", margin=format_percent(pair.margin, 1)))
    names = {"name": pair.second, "first": pair.first, "count": str(pair.tried)}
    if pair.best_of and pair.shrunk is not None:
        shrunk = {"shrunk": format_points(pair.shrunk.value), **interval_values(pair.shrunk)}
        lines.append(t("best_of_shrunk", **names, **shrunk))
    elif pair.best_of:
        lines.append(t("best_of", **names))
    elif pair.tied:
        lines.append(t("best_tied", **{**names, "ties": str(pair.tied)}))
    return lines


def _overlap_lines(pair: PairComparison, t: Translator) -> tuple[list[str], list[str]]:
    """How much larger the change is on overlapping questions, if it is; and the change without them."""
    if pair.clean is None:
        return [], []
    gap = pair.overlap_gap
    gap_lines = []
    if gap is not None and gap.significant:
        gap_lines.append(t("overlap_gap", gap=format_points(gap.value), **interval_values(gap)))
    if pair.only_leaked:
        return gap_lines, []
    if not pair.overlapping:
        return gap_lines, [t("clean_none")]
    return gap_lines, [t("clean", count=f"{pair.overlapping:,}", **_difference_values(pair.clean))]


def _detail_lines(pair: PairComparison, t: Translator) -> list[str]:
    lines = []
    if pair.debiased is not None:
        lines.append(t("debiased", **_difference_values(pair.debiased)))
    if pair.made_readable + pair.made_unreadable > pair.micro.n / 1000:
        counts = {"up": f"{pair.made_readable:,}", "down": f"{pair.made_unreadable:,}"}
        lines.append(t("readable", first=pair.first, second=pair.second, **counts))
    return [*lines, *_log_score_lines(pair, t), *_gained_lost_lines(pair, t)]


def _log_score_key(pair: PairComparison) -> str | None:
    """How the key's log score relates to accuracy; None if it is not known."""
    endpoints = {endpoint.name: endpoint for endpoint in pair.endpoints}
    if not endpoints or pair.micro.n < 50:
        return None
    score = endpoints["log_score"]
    direction = 0
    if pair.significant:
        direction = 1 if pair.micro.difference > 0 else -1
    if score.better == direction:
        return "score_agrees"
    if score.better * direction < 0:
        return "score_opposite"
    return "score_only" if score.better else "accuracy_only"


def _score_contradiction(pair: PairComparison, t: Translator) -> list[str]:
    """The log score's sentence if it says something else than accuracy."""
    if _log_score_key(pair) in ("score_opposite", "score_only"):
        return _score_lines(pair, t)
    return []


def _log_score_lines(pair: PairComparison, t: Translator) -> list[str]:
    """The log score's sentence if it says nothing new."""
    if _log_score_key(pair) in ("score_agrees", "accuracy_only"):
        return _score_lines(pair, t)
    return []


def _score_lines(pair: PairComparison, t: Translator) -> list[str]:
    key = _log_score_key(pair)
    if key is None:
        return []
    endpoints = {endpoint.name: endpoint for endpoint in pair.endpoints}
    score, brier = endpoints["log_score"], endpoints["brier"]
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
    if pair.repeated:
        total = pair.micro.n + pair.repeated
        lines.append(t("repeats", count=f"{pair.repeated:,}", total=f"{total:,}", n=f"{pair.micro.n:,}"))
    return [*lines, *unknown_notes(pair.overlap_known, pair.protocol_unknown, t)]
