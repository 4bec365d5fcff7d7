"""The data of the report's script: every question for the explorer, words and verdicts for the pairs a reader
picks.

In: findings, the room that is left in the page. Out: one packed text. Knows nothing of HTML.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from kmmlu_fast.reporting.html import explorer
from kmmlu_fast.reporting.html.page_context import hero_and_cards
from kmmlu_fast.reporting.report_data import Findings
from kmmlu_fast.reporting.wording.language import LANGUAGES, Words, table, texts

SHARED_WORDS = (
    "better",
    "worse",
    "same",
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


def packed_data(found: Findings, t: Words, room: int, *, with_texts: bool) -> tuple[str | None, int]:
    """The packed data (None where no run has answers), and how many generated texts were thinned out until it
    fits into ``room`` bytes.
    """
    if not found.answered:
        return None, 0
    more = _beside(found)
    questions = found.questions if with_texts else None
    budget = explorer.TEXT_BUDGET_BYTES if with_texts else 0
    while True:
        document = explorer.document(found.runs, questions, found.settings.overlap, t, budget)
        if not with_texts:
            for run in document["runs"]:
                run.pop("texts", None), run.pop("texts_left_out", None)
        packed = explorer.pack({**document, **more, **_names(found, document)})
        left_out = sum(run.get("texts_left_out", 0) for run in document["runs"])
        if len(packed) <= room or budget < 1_000:
            return packed, left_out
        budget //= 2


def _beside(found: Findings) -> dict[str, Any]:
    """Words in both languages, the pair in focus, and the verdicts that are ready."""
    names, pair = [run.name for run in found.answered], found.focus
    return {
        "languages": list(LANGUAGES),
        "words": {lang: table("explorer", lang) | _shared_words(lang) for lang in LANGUAGES},
        "pair": [names.index(name) for name in (pair.first, pair.second)] if pair else None,
        "views": {lang: _views(found, names, texts(lang, "report")) for lang in LANGUAGES}
        if len(names) > 2
        else None,
    }


def _names(found: Findings, document: dict[str, Any]) -> dict[str, Any]:
    """Subjects and their groups, by language."""
    ids = [subject["id"] for subject in document["subjects"]]
    frames = (run.scores.select("subject", "supercategory") for run in found.answered)
    groups = dict(pl.concat(frames).unique().iter_rows())
    both = [texts(lang) for lang in LANGUAGES]
    return {
        "names": [[t.subject(name) for name in ids] for t in both],
        "groups": [[t.supercategory(groups[name]) for name in ids] for t in both],
    }


def _shared_words(lang: str) -> dict[str, str]:
    """The report's own words that the script says too."""
    known = table("common", lang) | table("report", lang)
    return {name: known[name] for name in SHARED_WORDS}


def _views(found: Findings, names: list[str], t: Words) -> dict[str, Any]:
    """Verdict and tiles of each run against the base, by the run's place among ``names``."""
    views = {}
    for pair in found.pairs:
        both = hero_and_cards(found, pair, t)
        views[str(names.index(pair.second))] = {**both["hero"], "cards": both["cards"]}
    return views
