"""Why the numbers differ, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from made_forms import form_run

from kmmlu_fast.analysis.protocol_effects import compare_protocols
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.protocol_text import (
    PROTOCOL_COLUMN_KEYS,
    protocol_section,
    protocol_sentences,
    protocol_table_rows,
)

FACTS: dict[str, Any] = {"model": "m", "model_digest": "d", "template_digest": "t", "num_fewshot": 0}
KEY = ["A", "B"] * 60
SPACED = [[0.03, 0.01, 0.0, 0.0]] * 120
BARE = [[0.7, 0.1, 0.0, 0.0], [0.1, 0.7, 0.0, 0.0]] * 60
PLAIN = form_run("plain", KEY, SPACED, BARE, decoding={}, **FACTS)
BARE_RUN = form_run("bare", KEY, SPACED, BARE, "bare", decoding={"letter_form": "bare"}, **FACTS)
CHAT = form_run(
    "chat", KEY, SPACED, BARE, "bare", decoding={}, **{**FACTS, "prompt_style": "chat", "num_fewshot": 5}
)


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_rows_and_sentences(lang: str) -> None:
    t = get_translator(lang, "report")
    rows = compare_protocols([PLAIN, BARE_RUN, CHAT], ["lm-eval", "bare-letter", "mine"])
    table = protocol_table_rows(rows, t)
    assert [len(row) for row in table] == [len(PROTOCOL_COLUMN_KEYS)] * 3
    assert table[0][:4] == ["lm-eval", "50.00", "50.00", "4.0"] and table[0][5:] == [""] * 4
    assert table[1][5] == "lm-eval" and table[1][7] == "+50.00*"
    one, several = protocol_sentences(rows, t)
    assert t("factor_form") in one and "+50.00" in one
    assert "mine" in several and t("factor_shots") in several


def test_the_report_has_a_section_only_for_several_protocols() -> None:
    t = get_translator("en", "report")
    (view,) = protocol_section([PLAIN, BARE_RUN], t)
    assert view.name == "plain" and view.rows[1][0] == "bare" and "written form" in view.lines[0]
    assert protocol_section([PLAIN], t) == []


def test_the_section_names_protocols_if_every_run_was_asked_under_one() -> None:
    t = get_translator("en", "report")
    named = [
        replace(run, config={"config": {"protocol": name}})
        for run, name in ((PLAIN, "lm-eval"), (BARE_RUN, "bare-letter"))
    ]
    (view,) = protocol_section(named, t)
    assert [row[0] for row in view.rows] == ["lm-eval", "bare-letter"]
    (view,) = protocol_section([named[0], replace(BARE_RUN, config={"config": {"protocol": "lm-eval"}})], t)
    assert [row[0] for row in view.rows] == ["plain", "bare"]
