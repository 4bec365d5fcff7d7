"""Reading letters: log-probabilities against hand-computed numbers, exact match against lm-eval's rule."""

from __future__ import annotations

import math
import pickle

import pytest
from wants import text_of

from kmmlu_fast.core.letters import exact_match, read_letters
from kmmlu_fast.core.schema import Candidates, Completion, Continuation, Question, Response
from kmmlu_fast.prompting.methods import ContinuationChoice, GenerateUntil, MultipleChoice

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


def test_read_letters_by_hand() -> None:
    reading = read_letters([math.log(0.1), math.log(0.4), math.log(0.2), math.log(0.1)])
    assert reading.letter == "B"
    assert reading.margin == pytest.approx(math.log(2))
    assert reading.confidence == pytest.approx(0.5)  # 0.4 of the 0.8 that the letters share


def test_an_exact_tie_goes_to_the_earlier_letter() -> None:
    assert read_letters([-2.0, -1.0, -1.0, -3.0]).letter == "B"


def test_multiple_choice_is_one_request_of_the_prompt_as_it_is() -> None:
    method = MultipleChoice("lm-eval", (10, 11, 12, 13))
    [request] = method.start(ASKED, [[1, 2, 3]], None)
    assert (request.token_ids, request.want) == ((1, 2, 3), Candidates((10, 11, 12, 13)))
    found = method.finish(ASKED, [Response(request, logprobs=(-3.0, -2.0, -1.0, -4.0))])
    assert (found.prediction, found.correct, found.logprob_C, found.margin, found.prompt_tokens) == (
        "C",
        True,
        -1.0,
        1.0,
        3,
    )
    assert method.follow_up(Response(request)) == []


def test_continuations_are_scored_over_the_letters_tokens_in_any_order() -> None:
    method = ContinuationChoice("lm-eval")
    context = [1, 2, 3]
    requests = method.start(
        ASKED, [context, [*context, 7, 8], [*context, 7, 9], [*context, 7, 10], [*context, 7, 11]], None
    )
    assert [r.want for r in requests] == [Continuation(2)] * 4
    responses = [
        Response(r, logprobs=(score,)) for r, score in zip(requests, (-4.0, -1.0, -2.0, -3.0), strict=True)
    ]
    found = method.finish(ASKED, responses[::-1])
    assert (found.prediction, found.correct, found.logprob_B, found.prompt_tokens, found.read_by) == (
        "B",
        False,
        -1.0,
        3,
        "continuation",
    )


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (" A", "A"),
        ("b", "B"),
        (" (C)", "C"),
        ("D ", "D"),
        ("A B", None),
        ("", None),
        ("정답 A", None),
        ("E", None),
        ("A\n", None),
    ],
)
def test_exact_match_is_lm_evals(text: str, letter: str | None) -> None:
    assert exact_match(text) == letter


def test_what_cannot_be_read_is_unparsed_and_wrong_but_kept() -> None:
    method = GenerateUntil("lm-eval")
    [request] = method.start(ASKED, [[1]], None)
    assert text_of(request).stop == ("Q:", "\n\n", "</s>", ".")
    assert (text_of(request).temperature, text_of(request).top_p) == (0.0, 1.0)
    [shortest] = GenerateUntil("lm-eval", max_tokens=1).start(ASKED, [[1]], None)
    assert text_of(shortest).max_tokens == 2  # a space and the letter may be two tokens
    found = method.finish(ASKED, [Response(request, completions=(Completion("글쎄요", (5, 6), "length"),))])
    assert (found.prediction, found.correct, found.read_by, found.texts, found.output_tokens) == (
        None,
        False,
        None,
        ["글쎄요"],
        2,
    )


@pytest.mark.parametrize(
    "method", [MultipleChoice("qa", (1, 2, 3, 4)), ContinuationChoice("qa"), GenerateUntil("qa", seed=3)]
)
def test_methods_travel_to_ray_actors(method: object) -> None:
    assert pickle.loads(pickle.dumps(method)) == method
