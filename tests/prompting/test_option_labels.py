"""Questions of two to ten options: prompts, letters, rotations, reasoning and the ladder, each over the
question's own letters."""

from __future__ import annotations

import math

import pytest
from tiny import make_tiny_tokenizer
from wants import candidates_of, text_of

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import read_letters, reorder_question, rotate_question
from kmmlu_fast.core.schema import OPTION_LETTERS, Candidates, Completion, Question, Response
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.prompting.answer_extraction import extract_answer
from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
from kmmlu_fast.prompting.cot_wording import final_answer_lines, subject_instruction
from kmmlu_fast.prompting.method_choice import choose_method
from kmmlu_fast.prompting.methods import ContinuationChoice, GenerateUntil, MultipleChoice
from kmmlu_fast.prompting.predictions import prediction_logprobs
from kmmlu_fast.prompting.prompts import render_prompt
from kmmlu_fast.prompting.rotations import ALL, Rotations

ALL_LETTERS = "".join(OPTION_LETTERS)


def question(count: int, place: int = 0, number: int = 0) -> Question:
    options = tuple(f"{name}라는 것" for name in "가나다라마바사아자차"[:count])
    return Question(
        question_id=f"x/test/{number}",
        subject="x",
        supercategory="x",
        split="test",
        row=number,
        question="무엇인가?",
        options=options,
        answer=OPTION_LETTERS[place],
    )


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_a_prompt_lists_the_questions_own_letters(count: int) -> None:
    text = render_prompt(question(count), [], "lm-eval").text
    lines = text.splitlines()
    assert [line[:2] for line in lines[1:-1]] == [f"{letter}." for letter in OPTION_LETTERS[:count]]
    chat = render_prompt(question(count), [], "chat", make_tiny_tokenizer(chat=True)).text
    assert f"{', '.join(OPTION_LETTERS[:count])} 중 정답의" in chat


@pytest.mark.parametrize("count", [2, 5, 10])
def test_rotations_bring_every_option_to_every_letter(count: int) -> None:
    made = [rotate_question(question(count, 1), shift) for shift in range(count)]
    assert {one.options[0] for one in made} == set(question(count).options)
    assert all(one.options[one.letters.index(one.answer)] == "나라는 것" for one in made)
    assert reorder_question(question(3, 0), "CAB").answer == "B"


def test_letters_are_read_out_of_as_many_as_there_are() -> None:
    reading = read_letters([-3.0, -2.0, -9.0, -2.5, -0.5])
    assert reading.letter == "E" and reading.margin == 1.5
    assert reading.confidence == pytest.approx(math.exp(-0.5) / sum(map(math.exp, (-3, -2, -9, -2.5, -0.5))))


def answer(method: MultipleChoice | Rotations, asked: Question, ids: list[list[int]]) -> object:
    engine = FakeEngine()
    return method.finish(asked, list(engine.generate(method.start(asked, ids, None))))


@pytest.mark.parametrize("count", [2, 4, 5, 10])
def test_one_prefill_asks_for_the_questions_letters_only(count: int) -> None:
    method = MultipleChoice("lm-eval", tuple(range(10)))
    (request,) = method.start(question(count), [[1, 2, 3]], None)
    assert request.want == Candidates(tuple(range(count)))
    found = method.finish(question(count), list(FakeEngine().generate([request])))
    assert len(prediction_logprobs(found)) == count and found.num_options == count
    assert (found.option_logprobs is not None) is (count > 4) and (found.logprob_C is None) is (count < 3)
    assert (
        found.prediction == OPTION_LETTERS[prediction_logprobs(found).index(max(prediction_logprobs(found)))]
    )


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_rotations_over_all_options_average_each_options_log_probability(count: int) -> None:
    method = Rotations(MultipleChoice("lm-eval", tuple(range(10))), ALL)
    asked = question(count)
    requests = method.start(asked, [[shift] for shift in range(count)], None)
    assert len(requests) == count == len(method.render(asked, [], None))
    # under shift s letter i stands before option i + s: give option 1 the best value wherever it stands
    responses = [
        Response(r, logprobs=tuple(-1.0 if (i + s) % count == 1 else -2.0 for i in range(count)))
        for s, r in enumerate(requests)
    ]
    found = method.finish(asked, responses)
    assert found.debiased_prediction == "B" and found.debiased_logprobs is not None
    assert len(found.debiased_logprobs) == count and math.fsum(
        map(math.exp, found.debiased_logprobs)
    ) == pytest.approx(1)


def config(**values: object) -> EvalConfig:
    return EvalConfig(model="demo", **values)


def test_letters_that_are_no_single_tokens_are_scored_as_continuations() -> None:
    questions = [question(4), question(5, 4, 1)]
    exemplars: dict[str, list[Question]] = {"x": []}
    four, _, ids, _ = choose_method(config(), "lm-eval", questions[:1], exemplars, make_tiny_tokenizer())
    assert isinstance(four, MultipleChoice) and len(ids) == 4
    five, rendered, _, notes = choose_method(config(), "lm-eval", questions, exemplars, make_tiny_tokenizer())
    assert (
        isinstance(five, ContinuationChoice) and "one prefill per letter" in notes[0] and "' E'" in notes[0]
    )
    assert [len(prompts) for prompts in rendered] == [5, 6]
    all_ten = make_tiny_tokenizer(letters=ALL_LETTERS)
    method, _, ids, notes = choose_method(config(), "lm-eval", questions, exemplars, all_ten)
    assert isinstance(method, MultipleChoice) and len(ids) == 5 and not notes


def test_four_rotations_of_five_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="--rotations all"):
        choose_method(
            config(rotations=4), "lm-eval", [question(5)], {"x": []}, make_tiny_tokenizer(letters=ALL_LETTERS)
        )


def test_a_generated_letter_counts_only_if_the_question_has_it() -> None:
    for count, letter in ((5, "E"), (4, None)):
        method, asked = GenerateUntil("lm-eval"), question(count)
        responses = list(FakeEngine(text=" (e) ").generate(method.start(asked, [[1]], None)))
        assert method.finish(asked, responses).prediction == letter


def test_reasoning_names_stops_and_forces_the_questions_letters() -> None:
    tokenizer = make_tiny_tokenizer(letters=ALL_LETTERS)
    method = build_chain_of_thought("qa", tokenizer, letters=OPTION_LETTERS)
    assert len(method.force_letter_ids) == 10 and method.direct is not None
    for count in (2, 5, 10):
        asked = question(count)
        text = method.reasoning_prompt(asked, [], tokenizer).text
        letters = ", ".join(OPTION_LETTERS[:count])
        assert f"보기 {letters} 가운데" in text and f"X는 {letters} 중 하나" in text
        requests = method.start(asked, [[1, 2], [3, 4]], None)
        reason = requests[1]
        assert f"정답: {OPTION_LETTERS[count - 1]}\n" in text_of(reason).stop
        assert count == 10 or f"정답: {OPTION_LETTERS[count]}\n" not in text_of(reason).stop
        (forced,) = method.follow_up(Response(reason, completions=(Completion("모르겠다", (7, 8), "stop"),)))
        assert len(candidates_of(forced)) == count
    assert final_answer_lines("qa") == final_answer_lines("qa", "ABCD")
    assert "A, B, C, D" in subject_instruction("Law", "HUMSS") and "법 조문" in subject_instruction(
        "Law", "HUMSS", "ABCDE"
    )


FIVE = ("대차대조표", "손익계산서", "현금흐름표", "자본변동표", "주석")
TEN = ("고려", "조선", "신라", "백제", "고구려", "발해", "가야", "부여", "옥저", "동예")


@pytest.mark.parametrize(
    ("text", "letter", "rung"),
    [
        ("풀이\n정답: E", "E", "final_line"),
        ("풀이\n정답: Ｅ", "E", "final_line"),
        ("따라서 \\boxed{E}", "E", "boxed"),
        ("정답은 ⑤번입니다.", "E", "stated"),
        ("정답은 5번이다", "E", "stated"),
        ("A, B, C, D, E 중에서 정답은 (E)이다.", "E", "stated"),
        ("The answer is E.", "E", "stated"),
        ("❺가 정답입니다.", "E", "stated"),
        ("정답은 주석입니다", "E", "stated_option"),
        ("**E. 주석**", "E", "bold"),
        ("⑤ 주석", "E", "label_line"),
        ("(A)가 아니라 (E)입니다.", "E", "concluded"),
        ("그러므로 남는 것은 자본변동표이다.", "D", "closing_option"),
        ("정답: F", None, None),
        ("정답은 ⑥번입니다.", None, None),
        ("정답은 E가 아니다.", None, None),
    ],
)
def test_endings_of_five_options(text: str, letter: str | None, rung: str | None) -> None:
    reading = extract_answer(text, FIVE)
    assert (reading.letter, reading.rung) == (letter, rung)


@pytest.mark.parametrize(
    ("text", "letter", "rung"),
    [
        ("풀이\n정답: J", "J", "final_line"),
        ("정답: (I)", "I", "final_line"),
        ("따라서 \\boxed{H}", "H", "boxed"),
        ("정답은 10번입니다.", "J", "stated"),
        ("정답은 1번입니다.", "A", "stated"),
        ("정답은 ⑩번입니다.", "J", "stated"),
        ("정답은 ⑦이다.", "G", "stated"),
        ("G가 정답이다.", "G", "stated"),
        ("A, B, C, D, E, F, G, H, I, J 중 정답은 F입니다.", "F", "stated"),
        ("정답은 동예입니다", "J", "stated_option"),
        ("**I. 옥저**", "I", "bold"),
        ("J. 동예", "J", "label_line"),
        ("(A)가 아니라 (J)입니다.", "J", "concluded"),
        ("결국 답할 나라는 옥저이다.", "I", "closing_option"),
        ("정답: K", None, None),
        ("I am not sure about this question.", None, None),
    ],
)
def test_endings_of_ten_options(text: str, letter: str | None, rung: str | None) -> None:
    reading = extract_answer(text, TEN)
    assert (reading.letter, reading.rung) == (letter, rung)


def test_two_options_have_two_letters() -> None:
    assert extract_answer("정답: C", ("예", "아니오")).letter is None
    assert extract_answer("정답: B", ("예", "아니오")).letter == "B"
