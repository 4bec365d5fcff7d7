"""The data of the report's script: every question for the explorer, words and verdicts for the pairs a reader
picks.

In: ``ReportData``, the bytes left in the page, asked for last. Out: one packed text. Knows nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import polars as pl

from kmmlu_fast.reporting.html import explorer
from kmmlu_fast.reporting.html.page_context import hero_and_cards
from kmmlu_fast.reporting.html.pair_verdicts import compare_all_pairs, pair_verdicts
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import LANGUAGES, Translator, get_translator, text_table

SHARED_WORDS = (
    "details",
    "unit_pair",
    "eyebrow_pair",
    "short_micro",
    "short_macro",
    "card_changed",
    "card_changed_sub",
    "card_subjects",
    "card_subjects_sub",
    "subjects_note",
    "base",
    "significant",
)


def pack_page_data(
    report: ReportData,
    t: Translator,
    answers: Future[PackedAnswers],
    room: Callable[[], int],
    *,
    with_texts: bool,
) -> tuple[str, int]:
    """The packed data, and how many generated texts were left out to fit into ``room`` bytes, which is asked
    for when the data are ready. ``answers``: ``pack_answers`` with the largest budget.
    """
    more = _page_words_and_views(report)
    packed, budget = answers.result(), _text_budget(with_texts)
    while True:
        data = packed.json.finish({**more, **_localized_names(report, packed.subjects)})
        if len(data) <= room() or budget < 1_000:
            return data, packed.left_out
        budget //= 2
        packed = pack_answers(report, t, budget, with_texts=with_texts)


def _text_budget(with_texts: bool) -> int:
    return explorer.TEXT_BUDGET_BYTES if with_texts else 0


@dataclass(frozen=True, slots=True)
class PackedAnswers:
    """The explorer's part of the data."""

    json: explorer.PackedJson
    subjects: list[str]
    left_out: int  # generated texts


def pack_answers(
    report: ReportData, t: Translator, budget: int | None = None, *, with_texts: bool
) -> PackedAnswers:
    """Packed for reports with answers. ``budget``: bytes of generated texts; default: the most."""
    budget = _text_budget(with_texts) if budget is None else budget
    questions = report.questions if with_texts else None
    document = explorer.explorer_document(report.runs, questions, report.settings.overlap, t, budget)
    if not with_texts:
        for run in document["runs"]:
            run.pop("texts", None)
            run.pop("texts_left_out", None)
    left_out = sum(run.get("texts_left_out", 0) for run in document["runs"])
    subjects = [subject["id"] for subject in document["subjects"]]
    return PackedAnswers(explorer.PackedJson(document), subjects, left_out)


def _page_words_and_views(report: ReportData) -> dict[str, Any]:
    """Words in both languages, the pair in focus, and the verdicts computed in advance."""
    names, pair = [run.name for run in report.answered], report.focus
    views = verdicts = None
    if len(names) > 2:
        both = {lang: get_translator(lang, "report") for lang in LANGUAGES}
        found = compare_all_pairs(report)
        views = {lang: _pair_views(report, names, t) for lang, t in both.items()}
        verdicts = {lang: pair_verdicts(found, names, t) for lang, t in both.items()}
    return {
        "languages": list(LANGUAGES),
        "words": {lang: text_table("explorer", lang) | _shared_words(lang) for lang in LANGUAGES},
        "pair": [names.index(name) for name in (pair.first, pair.second)] if pair else None,
        "views": views,
        "verdicts": verdicts,
    }


def _localized_names(report: ReportData, ids: list[str]) -> dict[str, Any]:
    """Subjects and their groups, by language."""
    frames = (run.scores.select("subject", "supercategory") for run in report.answered)
    groups = dict(pl.concat(frames).unique().iter_rows())
    both = [get_translator(lang) for lang in LANGUAGES]
    return {
        "names": [[t.subject(name) for name in ids] for t in both],
        "groups": [[t.supercategory(groups[name]) for name in ids] for t in both],
    }


def _shared_words(lang: str) -> dict[str, str]:
    """The report's texts that the script uses too."""
    known = text_table("common", lang) | text_table("report", lang)
    return {name: known[name] for name in SHARED_WORDS}


def _pair_views(report: ReportData, names: list[str], t: Translator) -> dict[str, Any]:
    """Verdict and tiles of each run against the base, by the run's place among ``names``."""
    views = {}
    for pair in report.pairs:
        both = hero_and_cards(report, pair, t)
        views[str(names.index(pair.second))] = {**both["hero"], "cards": both["cards"]}
    return views
