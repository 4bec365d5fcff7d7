"""The two written forms of a letter: the text before it, their sum, and both from one prefill."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny import make_tiny_tokenizer

from kmmlu_fast.core.errors import ConfigError, EngineError
from kmmlu_fast.core.schema import Candidates, Question, Response
from kmmlu_fast.prompting.letter_forms import (
    form_delimiter,
    letter_mass,
    other_letter_form,
    style_letter_form,
    sum_letter_forms,
)
from kmmlu_fast.prompting.method_choice import PromptChecker, choose_method
from kmmlu_fast.prompting.methods import ContinuationChoice, MultipleChoice
from kmmlu_fast.prompting.prompts import encode_prompts

ASKED = Question(
    question_id="Law/test/3",
    subject="Law",
    supercategory="HUMSS",
    split="test",
    row=3,
    question="하늘의 색은?",
    options=("빨강", "검정", "파랑", "하양"),
    answer="C",
)
SPACED = tuple(math.log(p) for p in (0.01, 0.02, 0.005, 0.005))
BARE = tuple(math.log(p) for p in (0.1, 0.2, 0.4, 0.1))


def settings(form: str | None, **more: object) -> SimpleNamespace:
    values = {
        **{"output_type": "multiple_choice", "prompt_style": "lm-eval", "rotations": 1, "max_tokens": None},
        **{"num_samples": 1, "temperature": 0.0, "top_p": 1.0, "seed": 0, "cot_below": None},
        **{"thinking": False, "letter_form": form},
    }
    return SimpleNamespace(**values | more)


def ask(method: MultipleChoice, logprobs: tuple[float, ...]) -> Response:
    (request,) = method.start(ASKED, [[1, 2, 3]], None)
    return Response(request, logprobs=logprobs)


def test_a_letters_two_forms_are_summed_by_hand() -> None:
    assert [math.exp(value) for value in sum_letter_forms(SPACED, BARE)] == pytest.approx(
        [0.11, 0.22, 0.405, 0.105]
    )
    assert sum_letter_forms([-math.inf, -1.0], [-math.inf, -math.inf]) == [-math.inf, -1.0]
    assert math.isnan(sum_letter_forms([math.nan], [-1.0])[0])
    assert letter_mass(BARE) == pytest.approx(0.8)
    assert letter_mass([1e-4, -math.inf]) == 1.0  # rounding


@pytest.mark.parametrize(
    ("style", "own", "spaced", "bare"), [("lm-eval", "lm-eval", " ", ""), ("qa", "lm-eval", " ", "")]
)
def test_what_stands_before_a_letter(style: str, own: str, spaced: str, bare: str) -> None:
    assert style_letter_form(style) == own
    assert (form_delimiter("lm-eval", style), form_delimiter("bare", style)) == (spaced, bare)


def test_a_conversation_writes_the_bare_letter() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    assert style_letter_form("chat", tokenizer) == "bare"
    assert form_delimiter("lm-eval", "chat", tokenizer) == " "
    assert other_letter_form("bare") == "lm-eval"


@pytest.mark.parametrize(
    ("form", "letter", "first"), [("lm-eval", "B", SPACED), ("bare", "C", BARE), ("either", "C", SPACED)]
)
def test_one_prefill_gives_both_forms(form: str, letter: str, first: tuple[float, ...]) -> None:
    method = MultipleChoice("lm-eval", (10, 11, 12, 13), (20, 21, 22, 23), form)
    other = BARE if first is SPACED else SPACED
    response = ask(method, first + other)
    assert response.request.want == Candidates((10, 11, 12, 13, 20, 21, 22, 23))
    found = method.finish(ASKED, [response])
    assert found.prediction == letter
    assert found.spaced_logprobs == pytest.approx(SPACED) and found.bare_logprobs == pytest.approx(BARE)
    assert (found.spaced_mass, found.bare_mass) == pytest.approx((0.04, 0.8))
    scored = {"lm-eval": SPACED, "bare": BARE, "either": sum_letter_forms(SPACED, BARE)}[form]
    assert (found.logprob_A, found.logprob_D) == pytest.approx((scored[0], scored[3]))


def test_each_question_asks_for_its_own_letters_in_both_forms() -> None:
    method = MultipleChoice("lm-eval", (10, 11, 12, 13), (20, 21, 22, 23))
    two = replace(ASKED, options=("예", "아니요"), answer="A")
    (request,) = method.start(two, [[1]], None)
    assert request.want == Candidates((10, 11, 20, 21))
    found = method.finish(two, [Response(request, logprobs=(-1.0, -2.0, -3.0, -0.5))])
    assert (found.prediction, found.spaced_logprobs, found.bare_logprobs) == ("A", [-1.0, -2.0], [-3.0, -0.5])


def test_one_form_alone_leaves_the_other_unknown() -> None:
    method = MultipleChoice("chat", (20, 21, 22, 23), form="bare", style_form="bare")
    found = method.finish(ASKED, [ask(method, BARE)])
    assert found.spaced_logprobs is None and found.spaced_mass is None
    assert found.bare_mass == pytest.approx(0.8)


def test_overflow_in_the_scored_sum_is_refused() -> None:
    method = MultipleChoice("lm-eval", (10, 11, 12, 13), (20, 21, 22, 23), "either")
    with pytest.raises(EngineError, match="overflow"):
        method.finish(ASKED, [ask(method, (*SPACED, math.nan, *BARE[1:]))])


def test_only_another_form_than_the_styles_has_another_fingerprint() -> None:
    ids = (10, 11, 12, 13)
    assert MultipleChoice("lm-eval", ids, ids).decoding([ASKED]) == {}
    assert MultipleChoice("chat", ids, ids, "bare", "bare").decoding([ASKED]) == {}
    assert MultipleChoice("chat", ids, ids, "lm-eval", "bare").decoding([ASKED]) == {"letter_form": "lm-eval"}
    assert ContinuationChoice("qa", "bare").decoding([ASKED]) == {"letter_form": "bare"}


@pytest.mark.parametrize("form", [None, "lm-eval", "bare", "either"])
def test_the_tokens_of_both_forms_are_found_and_checked(form: str | None) -> None:
    tokenizer = make_tiny_tokenizer()
    method, rendered, probe_ids, notes = choose_method(
        settings(form), "lm-eval", [ASKED], {"Law": []}, tokenizer
    )
    assert isinstance(method, MultipleChoice) and notes == []
    texts = {name: tokenizer.convert_ids_to_tokens(list(ids)) for name, ids in method.scored_forms.items()}
    assert texts["bare"] == ["A", "B", "C", "D"] and texts["lm-eval"] == ["ĠA", "ĠB", "ĠC", "ĠD"]
    assert next(iter(texts)) == ("bare" if form == "bare" else "lm-eval")
    assert tokenizer.convert_ids_to_tokens(list(probe_ids)) == texts["lm-eval"]  # whatever is scored
    token_ids = [[array("i", ids) for ids in encode_prompts(tokenizer, rendered[0])]]
    check = PromptChecker("lm-eval", tokenizer, method, 4096)
    check([ASKED], rendered, token_ids)
    wrong = replace(method, other_ids=method.other_ids[::-1])
    with pytest.raises(ConfigError, match="depend on the question"):
        PromptChecker("lm-eval", tokenizer, wrong, 4096)([ASKED], rendered, token_ids)


def test_a_form_of_several_tokens_is_left_out_scored_by_continuations_or_refused() -> None:
    tokenizer = make_tiny_tokenizer(letters="")  # " A" is a space and "A"
    arguments = ("lm-eval", [ASKED], {"Law": []}, tokenizer)
    method, *_, notes = choose_method(settings(None), *arguments)
    assert method == ContinuationChoice("lm-eval") and "continuations" in notes[0]
    method, *_, notes = choose_method(settings("bare"), *arguments)
    assert isinstance(method, MultipleChoice) and method.other_ids == ()
    assert "only one written form" in notes[0] and method.decoding([ASKED]) == {"letter_form": "bare"}
    with pytest.raises(ConfigError, match="--letter-form either: ' A' is 2 tokens"):
        choose_method(settings("either"), *arguments)


def test_continuations_follow_the_form() -> None:
    bare, spaced = (
        ContinuationChoice("lm-eval", form).render(ASKED, [], None) for form in ("bare", "lm-eval")
    )
    assert bare[1].text == bare[0].text + "A" and spaced[1].text == spaced[0].text + " A"
