"""The methods paragraph says what the runs record, and that the rest is not recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_runs import QUICK, loaded, predictions

from kmmlu_fast.reporting.report_data import collect_report_data
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.methods_text import methods_sentences

FACTS = {
    "output_type": "multiple_choice",
    "prompt_style": "qa",
    "num_fewshot": 5,
    "versions": {"vllm": "0.32.0"},
}


def _paragraph(lang: str = "en", second: dict[str, object] | None = None, **facts: object) -> str:
    base = loaded("base", predictions(1, skill=0.5), **{**FACTS, **facts})
    lora = loaded("lora", predictions(1, skill=1.5), **{**FACTS, **(second if second is not None else facts)})
    report = collect_report_data([base, lora], replace(QUICK, margin=0.02))
    return " ".join(methods_sentences(report, get_translator(lang, "methods")))


def test_settings_are_the_runs_own() -> None:
    text = _paragraph()
    assert "the 200 questions of KMMLU (test split)" in text
    assert "5-shot with the qa prompt" in text and "highest log-probability" in text
    assert "within 2.0 percentage points" in text and "vllm 0.32.0" in text
    assert "generated" not in text and "Holm" not in text
    generated = _paragraph(output_type="generate_until", num_fewshot=0, decoding={"max_tokens": 16})
    unlimited = _paragraph(output_type="generate_until", num_fewshot=0)
    assert "from the generated text; answers that cannot be read" in unlimited
    assert "zero-shot" in generated and "at most 16 tokens" in generated and "count as wrong" in generated


def test_what_is_not_recorded_is_not_claimed() -> None:
    text = _paragraph(output_type=None, versions={})
    assert (
        "is not recorded" in text and "The analysis was done with" in text and "log-probability" not in text
    )


def test_runs_that_were_asked_differently_are_told_apart() -> None:
    text = _paragraph(second={"num_fewshot": 0})
    assert "base: Models are asked 5-shot" in text and "lora: Models are asked zero-shot" in text


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_both_languages_end_their_sentences(lang: str) -> None:
    text = _paragraph(lang)
    assert text.endswith(".") and "{" not in text and "None" not in text
