"""Chain of thought: prompts byte by byte, forced answers, votes, budget, rotations, resume, and
what the comparison says.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny import make_tiny_tokenizer
from wants import candidates_of, text_of

from kmmlu_fast.analysis.reasoning import compare_reasoning
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import normalize_logprobs, rotate_question
from kmmlu_fast.core.prediction_frames import predictions_frame
from kmmlu_fast.core.schema import LETTERS, Candidates, Completion, Prediction, Question, Request, Response
from kmmlu_fast.data.subjects import SUBJECTS, SUPERCATEGORIES
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation import runner
from kmmlu_fast.evaluation.runner import ask_questions
from kmmlu_fast.prompting.answer_extraction import STRICT, extract_answer
from kmmlu_fast.prompting.cot import ChainOfThought, sampling_seed
from kmmlu_fast.prompting.cot_digest import cot_wording_digest
from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
from kmmlu_fast.prompting.cot_wording import default_cot_style, load_instructions, subject_instruction
from kmmlu_fast.prompting.methods import MultipleChoice
from kmmlu_fast.prompting.prompts import encode_prompts
from kmmlu_fast.prompting.rotations import Rotations
from kmmlu_fast.prompting.tokens import render_and_tokenise
from kmmlu_fast.prompting.vote_stopping import majority_vote
from kmmlu_fast.reporting.wording import reasoning_text
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.runs.metrics import Metrics
from kmmlu_fast.runs.store import RunStore, load_run_directory

QWEN_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content +"
    " '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if"
    " enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif"
    " %}{%- endif %}"
)
CANNOT_BE_READ = "보기를 차례로 살펴보면 쉽지 않은 문제이다"


def make_question(
    row: int = 0, answer: str = "B", subject: str = "Math", supercategory: str = "STEM"
) -> Question:
    return Question(
        question_id=f"{subject}/test/{row}",
        subject=subject,
        supercategory=supercategory,
        split="test",
        row=row,
        question=f"{row}에 1을 더하면?",
        options=("영", "하나", "둘", "셋"),
        answer=answer,
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tiny_tokenizer()


@pytest.fixture(scope="module")
def qwen() -> Any:
    made = make_tiny_tokenizer(chat=True)
    made.chat_template = QWEN_TEMPLATE
    return made


class Kept(list[Prediction]):
    """A sink."""


class Scripted(FakeEngine):
    """A FakeEngine whose letters' log-probabilities, finish reason and samples are given; keeps
    every request.
    """

    def __init__(
        self,
        texts: Callable[[Request], Sequence[str]] | str,
        letters: Callable[[Request], Sequence[float]] | None = None,
        finish_reason: str = "stop",
    ) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self._script, self._letters, self._finish = texts, letters, finish_reason

    def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        if isinstance(request.want, Candidates):
            return (
                Response(request, logprobs=tuple(self._letters(request)))
                if self._letters
                else super()._answer(request)
            )
        texts = (
            [self._script] * text_of(request).num_samples
            if isinstance(self._script, str)
            else self._script(request)
        )
        return Response(
            request,
            completions=tuple(Completion(t, tuple(ord(c) % 200 + 5 for c in t), self._finish) for t in texts),
        )


def ask(engine: FakeEngine, method: Any, questions: Sequence[Question], tokenizer: Any) -> list[Prediction]:
    kept = Kept()
    asked, _ = render_and_tokenise(questions, {q.subject: [] for q in questions}, method, tokenizer)
    ask_questions(engine, asked, method, None, kept)
    return list(kept)


# prompts
# ---------------------------------------------------------------------------------------


def test_chat_prompt_is_this_byte_by_byte(qwen: Any) -> None:
    method = build_chain_of_thought("chat", qwen)
    prompt = method.reasoning_prompt(make_question(), [], qwen)
    assert not prompt.add_special_tokens
    assert (
        prompt.text == "<|im_start|>system\n"
        "다음은 한국어 객관식 문제입니다. 보기 A, B, C, D 가운데 정답은 하나입니다. 문제를 읽고 단계별로"
        " 풀이한 뒤 답하세요.\n"
        '"옳은 것"을 묻는지 "옳지 않은 것"을 묻는지 먼저 확인하고, 보기를 하나씩 따져 보세요.\n'
        "주어진 조건을 식으로 옮기고, 생략 없이 한 단계씩 계산한 뒤 결과를 검산하세요.\n"
        '풀이는 간결하게 쓰고, 마지막 줄에는 "정답: X"만 쓰세요. X는 A, B, C, D 중 하나입니다.<|im_end|>\n'
        "<|im_start|>user\n"
        "0에 1을 더하면?\nA. 영\nB. 하나\nC. 둘\nD. 셋\n"
        '단계별로 풀이한 다음, 마지막 줄에 "정답: X" 형식으로 답하세요.<|im_end|>\n'
        "<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n"
    )


def test_thinking_leaves_the_turn_open_and_exemplars_keep_their_letters(qwen: Any) -> None:
    method = build_chain_of_thought("chat", qwen, thinking=True)
    text = method.reasoning_prompt(make_question(), [make_question(7, "D")], qwen).text
    assert text.endswith("형식으로 답하세요.<|im_end|>\n<|im_start|>assistant\n")
    assert (
        "<|im_start|>user\n7에 1을 더하면?\nA. 영\nB. 하나\nC. 둘\nD."
        " 셋\n정답：<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n<|im_start|>user\n0에 1을"
        " 더하면?\nA. 영\n" in text
    )


def test_qa_prompt_is_this_byte_by_byte(tokenizer: Any) -> None:
    question = make_question(subject="Ecology")
    assert (
        build_chain_of_thought("qa", tokenizer)
        .reasoning_prompt(question, [make_question(7, "D")], tokenizer)
        .text
        == f"{subject_instruction('Ecology', 'STEM')}\n\n"
        "문제: 7에 1을 더하면?\nA. 영\nB. 하나\nC. 둘\nD. 셋\n정답: D\n\n"
        "문제: 0에 1을 더하면?\nA. 영\nB. 하나\nC. 둘\nD. 셋\n풀이:"
    )


def test_direct_prompt_is_that_of_multiple_choice(tokenizer: Any) -> None:
    method = build_chain_of_thought("lm-eval", tokenizer)
    assert method.direct is not None
    assert method.render(make_question(), [], tokenizer)[1:] == MultipleChoice(
        "lm-eval", (0, 1, 2, 3)
    ).render(make_question(), [], tokenizer)


def test_instructions_name_only_subjects_that_exist_and_cover_every_supercategory() -> None:
    data = load_instructions()
    assert set(data["supercategory"]) == set(SUPERCATEGORIES)
    assert set(data["subject"]) < set(SUBJECTS)
    assert subject_instruction("Law", "HUMSS") != subject_instruction("Marketing", "Other")
    assert all('"정답: X"' in subject_instruction(s.name, s.supercategory) for s in SUBJECTS.values())


def test_wording_digest_changes_with_style_and_is_stable(tokenizer: Any, qwen: Any) -> None:
    digest = cot_wording_digest(build_chain_of_thought("qa", tokenizer), tokenizer)
    assert digest == cot_wording_digest(build_chain_of_thought("qa", tokenizer, max_tokens=9), tokenizer)
    assert digest != cot_wording_digest(build_chain_of_thought("lm-eval", tokenizer), tokenizer)
    assert cot_wording_digest(build_chain_of_thought("chat", qwen), qwen) != cot_wording_digest(
        build_chain_of_thought("chat", qwen, thinking=True), qwen
    )


def test_default_style_is_chat_where_there_is_a_template(tokenizer: Any, qwen: Any) -> None:
    assert (default_cot_style(tokenizer), default_cot_style(qwen)) == ("qa", "chat")


# reading and forcing
# ---------------------------------------------------------------------------------------------------------


def test_a_read_answer_is_not_forced(tokenizer: Any) -> None:
    engine = Scripted("1을 더하면 하나이다.\n정답: B\n")
    (prediction,) = ask(engine, build_chain_of_thought("qa", tokenizer), [make_question()], tokenizer)
    assert [r.stage for r in engine.requests] == ["letters", "reason"]
    assert (prediction.prediction, prediction.correct, prediction.read_by, prediction.forced) == (
        "B",
        True,
        "final_line",
        False,
    )
    assert prediction.texts == ["1을 더하면 하나이다.\n정답: B\n"]
    assert prediction.confidence is None and prediction.sample_predictions is None
    assert prediction.logprob_A is None and prediction.margin is not None


def test_an_option_quoted_instead_of_a_letter_is_read_without_forcing(tokenizer: Any) -> None:
    engine = Scripted("따라서 정답은 셋입니다.")
    (prediction,) = ask(engine, build_chain_of_thought("qa", tokenizer), [make_question()], tokenizer)
    assert (prediction.prediction, prediction.read_by) == ("D", "stated_option")
    assert [r.stage for r in engine.requests] == ["letters", "reason"]


@pytest.mark.parametrize(
    ("text", "finish_reason"),
    [
        (CANNOT_BE_READ, "stop"),
        ("", "stop"),
        (CANNOT_BE_READ, "length"),
        ("값을 비교하면 남는 것은 C이다.", "length"),
        ("정답은 A와 B", "stop"),
    ],
)
def test_what_cannot_be_read_is_forced_after_its_own_reasoning(
    text: str, finish_reason: str, tokenizer: Any
) -> None:
    method = build_chain_of_thought("qa", tokenizer)
    engine = Scripted(
        text,
        lambda request: (-3.0, -2.0, -0.5, -4.0) if request.stage == "forced-0" else (-1.0, -2.0, -3.0, -4.0),
        finish_reason,
    )
    (prediction,) = ask(engine, method, [make_question()], tokenizer)
    reason, forced = engine.requests[1:]
    assert forced.stage == "forced-0"
    assert forced.token_ids == reason.token_ids + tuple(ord(c) % 200 + 5 for c in text) + tuple(
        tokenizer.encode("\n정답：", add_special_tokens=False)
    )
    assert [tokenizer.decode([i]) for i in candidates_of(forced)] == [" A", " B", " C", " D"]
    assert (prediction.prediction, prediction.read_by, prediction.forced) == ("C", "forced", True)
    assert (prediction.direct_prediction, prediction.logprob_A, prediction.margin) == ("A", -3.0, 1.0)
    assert prediction.output_tokens == len(text) + 1 + 1


def test_a_text_cut_by_its_budget_counts_only_where_it_names_an_answer(tokenizer: Any) -> None:
    method = build_chain_of_thought("qa", tokenizer)
    options = make_question().options
    assert (
        method.read_completion(Completion("정답은 C입니다. 왜냐하면 둘", (), "length"), options).letter == "C"
    )
    assert method.read_completion(Completion("남는 것은 C이다.", (), "length"), options).letter is None
    assert method.read_completion(Completion("남는 것은 C이다.", (), "stop"), options).letter == "C"


def test_end_tokens_and_the_next_question_are_cut_off_before_forcing(tokenizer: Any) -> None:
    method = build_chain_of_thought("qa", tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|eos|>")
    tail = tuple(tokenizer.encode("\n문제:", add_special_tokens=False))
    assert method.forcing_ids(Completion("모른다", (9, 8, 7, end), "stop")) == (9, 8, 7, *method.force_ids)
    assert method.forcing_ids(Completion("모른다\n문제:", (9, 8, 7, *tail), "stop")) == (
        9,
        8,
        7,
        *method.force_ids,
    )
    assert (
        method.read_completion(Completion("정답은 B이다\n문제:", (), "stop"), make_question().options).letter
        == "B"
    )


def test_unfinished_thinking_is_closed_before_the_answer_is_forced(qwen: Any) -> None:
    method = build_chain_of_thought("chat", qwen, thinking=True)
    closing = tuple(qwen.encode("\n</think>\n", add_special_tokens=False))
    assert method.forcing_ids(Completion("아마\n정답: A", (7, 8), "length")) == (
        7,
        8,
        *closing,
        *method.force_ids,
    )
    assert method.forcing_ids(Completion("아마</think>\n모른다", (7, 8), "stop")) == (7, 8, *method.force_ids)
    engine = Scripted("아마 그럴 것이다.\n정답: A\n", finish_reason="length")
    (prediction,) = ask(engine, method, [make_question()], qwen)
    assert prediction.forced
    assert (
        text_of(next(r for r in engine.requests if r.stage == "reason")).stop == ()
    )  # a stop inside the thinking would end it


@pytest.mark.parametrize(
    "text", ["", "A", "①", "\n\n", "정답", "정답: E", "<think>", "B가 아니다", "\\boxed{}", "정답은 A 또는 B"]
)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_nothing_is_ever_unparsed(text: str, finish_reason: str, num_samples: int, tokenizer: Any) -> None:
    method = build_chain_of_thought("lm-eval", tokenizer, num_samples=num_samples, temperature=0.7)
    for prediction in ask(
        Scripted(text, finish_reason=finish_reason), method, [make_question(i) for i in range(3)], tokenizer
    ):
        assert prediction.prediction in LETTERS
        assert prediction.read_by is not None


@pytest.mark.parametrize(
    ("style", "wanted"),
    [("qa", {"정답: A\n"}), ("lm-eval", {"정답: A\n", "정답： A\n"}), ("chat", {"정답: A\n", "정답: A**"})],
)
def test_generation_stops_at_the_complete_final_line_which_the_ladder_reads_strictly(
    style: str, wanted: set[str], qwen: Any
) -> None:
    engine = Scripted("정답: A\n")
    ask(engine, build_chain_of_thought(style, qwen), [make_question()], qwen)
    reason = text_of(next(r for r in engine.requests if r.stage == "reason"))
    assert reason.include_stop
    assert {stop for stop in reason.stop if "A" in stop} == wanted
    assert ("\n문제:" in reason.stop) == (style != "chat")
    for stop in reason.stop:
        if stop != "\n문제:":
            assert extract_answer(f"풀이를 마친다.\n{stop}").rung in STRICT


# samples, budget, rotations
# --------------------------------------------------------------------------------------------------


def test_majority_wins_and_ties_go_to_the_likelier_letter() -> None:
    assert majority_vote(["A", "B", "B", "C"], (-0.1, -9.0, -9.0, -9.0)) == ("B", 0.5)
    assert majority_vote(["A", "B", "B", "A"], (-2.0, -1.0, -0.1, -3.0)) == ("B", 0.5)
    assert majority_vote(["D", "B"], None) == ("D", 0.5)


def test_samples_vote_and_agreement_is_the_confidence(tokenizer: Any) -> None:
    method = build_chain_of_thought("qa", tokenizer, num_samples=4, temperature=0.7, top_p=0.9)
    texts = ("정답: B\n", "정답은 B입니다.", CANNOT_BE_READ, "정답: D\n")
    engine = Scripted(lambda request: texts, lambda request: (-1.0, -2.0, -3.0, -4.0))
    (prediction,) = ask(engine, method, [make_question()], tokenizer)
    assert [r.stage for r in engine.requests] == ["letters", "reason", "forced-2"]
    text = text_of(engine.requests[1])
    assert (text.num_samples, text.temperature, text.top_p) == (4, 0.7, 0.9)
    assert prediction.sample_predictions == ["B", "B", "A", "D"]
    assert (prediction.prediction, prediction.confidence, prediction.read_by, prediction.forced) == (
        "B",
        0.5,
        "final_line",
        False,
    )
    assert prediction.texts == list(texts)


def test_seeds_are_per_question_stable_and_absent_when_greedy(tokenizer: Any) -> None:
    assert sampling_seed(42, "Math/test/0", "reason") == 1943831353
    seeds = {sampling_seed(seed, f"Math/test/{row}", "reason") for seed in (1, 2) for row in range(500)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**31 for seed in seeds)
    engine = Scripted("정답: A\n")
    ask(engine, build_chain_of_thought("qa", tokenizer), [make_question()], tokenizer)
    assert {text_of(r).seed for r in engine.requests if r.stage == "reason"} == {None}


def test_only_questions_with_a_small_margin_are_reasoned_about(tokenizer: Any) -> None:
    questions = [make_question(i) for i in range(10)]
    method = build_chain_of_thought("qa", tokenizer, below=1.0)

    def letters(request: Request) -> Sequence[float]:
        return (
            (-1.0, -1.5, -5.0, -5.0) if request.question_id.endswith(("3", "7")) else (-1.0, -2.5, -5.0, -5.0)
        )

    engine = Scripted("정답: B\n", letters)
    predictions = {p.row: p for p in ask(engine, method, questions, tokenizer)}
    assert sorted(r.question_id for r in engine.requests if r.stage == "reason") == [
        "Math/test/3",
        "Math/test/7",
    ]
    assert {row for row, p in predictions.items() if p.texts} == {3, 7}
    assert (predictions[3].prediction, predictions[3].direct_prediction, predictions[3].margin) == (
        "B",
        "A",
        0.5,
    )
    assert (predictions[0].prediction, predictions[0].direct_prediction, predictions[0].read_by) == (
        "A",
        "A",
        "loglikelihood",
    )
    full = ask(Scripted("정답: B\n", letters), build_chain_of_thought("qa", tokenizer), questions, tokenizer)
    assert {p.question_id: p.prompt_digest for p in full} == {
        p.question_id: p.prompt_digest for p in predictions.values()
    }


def test_rotation_moves_options_and_key_together() -> None:
    turned = rotate_question(make_question(answer="B"), 1)
    assert (turned.options, turned.answer) == (("하나", "둘", "셋", "영"), "A")
    assert rotate_question(make_question(answer="A"), 3).answer == "B"


def test_rotations_remove_a_letter_bias_exactly(tokenizer: Any) -> None:
    knowledge = {"영": 0.0, "하나": 0.3, "둘": 1.0, "셋": 0.1}
    bias = (5.0, 0.0, -1.0, 2.0)

    def letters(request: Request) -> list[float]:
        lines = tokenizer.decode(list(request.token_ids)).splitlines()
        options = [next(line[3:] for line in lines if line.startswith(f"{letter}. ")) for letter in LETTERS]
        return normalize_logprobs([knowledge[option] + b for option, b in zip(options, bias, strict=True)])

    inner = build_chain_of_thought("qa", tokenizer).direct
    assert inner is not None
    question = make_question(answer="C")
    engine = Scripted("", letters)
    (prediction,) = ask(engine, Rotations(inner, 4), [question], tokenizer)
    (plain,) = ask(Scripted("", letters), inner, [question], tokenizer)
    assert [r.stage for r in engine.requests] == [f"rotation-{i}/letters" for i in range(4)]
    assert (prediction.prediction, prediction.debiased_prediction, prediction.correct) == ("A", "C", False)
    assert prediction.debiased_logprobs is not None
    differences = [value - prediction.debiased_logprobs[0] for value in prediction.debiased_logprobs]
    assert differences == pytest.approx([0.0, 0.3, 1.0, 0.1])
    assert (plain.prediction, plain.logprob_B, plain.prompt_digest) == (
        prediction.prediction,
        prediction.logprob_B,
        prediction.prompt_digest,
    )


def test_two_rotations_are_opposite_orders(tokenizer: Any) -> None:
    inner = build_chain_of_thought("qa", tokenizer).direct
    assert inner is not None
    method = Rotations(inner, 2)
    second = method.render(make_question(), [], tokenizer)[1].text
    assert "A. 둘\nB. 셋\nC. 영\nD. 하나" in second


@pytest.mark.parametrize("below", [None, 1.0])
def test_methods_are_pickled_whole(below: float | None, tokenizer: Any) -> None:
    method = build_chain_of_thought("qa", tokenizer, below=below)
    assert method.direct is not None
    assert pickle.loads(pickle.dumps(method)) == method
    assert pickle.loads(pickle.dumps(Rotations(method.direct))) == Rotations(method.direct)
    assert len(pickle.dumps(method)) < 4000
    request = method.start(
        make_question(), encode_prompts(tokenizer, method.render(make_question(), [], tokenizer)), None
    )[0]
    assert pickle.loads(pickle.dumps(request)) == request


@pytest.mark.parametrize(
    ("style", "settings", "says"),
    [("qa", {"thinking": True}, "--prompt-style chat"), ("chat", {}, "chat template")],
)
def test_settings_that_do_not_fit_the_tokenizer_are_refused(
    style: str, settings: dict[str, Any], says: str, tokenizer: Any
) -> None:
    with pytest.raises(ConfigError, match=says):
        build_chain_of_thought(style, tokenizer, **settings)
    with pytest.raises(ConfigError, match="--prompt-style chat"):
        chat = make_tiny_tokenizer(chat=True)
        chat.chat_template = QWEN_TEMPLATE
        build_chain_of_thought("qa", chat, thinking=True)


# kill and restart
# ------------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for the process being killed."""


class Dying(Scripted):
    def __init__(self, after: int, *args: Any) -> None:
        super().__init__(*args)
        self._after = after

    def generate(self, requests: Any, follow_up: Any = None) -> Iterator[Response]:
        for count, response in enumerate(super().generate(requests, follow_up)):
            if count == self._after:
                raise Killed
            yield response


@pytest.mark.parametrize("after", [0, 1, 57, 350, 500])
def test_a_killed_run_continues_with_all_questions_once_and_the_same_samples(
    after: int, tmp_path: Path, tokenizer: Any
) -> None:
    questions = [make_question(i, LETTERS[i % 4]) for i in range(200)]
    method = build_chain_of_thought("qa", tokenizer, num_samples=2, temperature=0.7)

    def texts(request: Request) -> list[str]:
        seed = text_of(request).seed
        assert seed is not None
        return [CANNOT_BE_READ if seed % 3 == 0 else f"정답: {LETTERS[(seed + i) % 4]}\n" for i in range(2)]

    def once(root: Path, engine: FakeEngine) -> RunStore:
        store = RunStore(root, "cot", {"method": "cot"}, {})
        asked, _ = render_and_tokenise(
            [q for q in questions if q.question_id not in store.answered], {"Math": []}, method, tokenizer
        )
        try:
            ask_questions(engine, asked, method, None, Flushing(store))
        finally:
            store._buffer.clear()  # a kill loses what no part holds yet
            store.close()
        return store

    whole = once(tmp_path / "whole", Scripted(texts))
    with pytest.raises(Killed):
        once(tmp_path / "killed", Dying(after, texts))
    again = Scripted(texts)
    store = once(tmp_path / "killed", again)
    assert len({r.question_id for r in again.requests}) == 200 - count_after_kill(store, again)
    frames = []
    for made in (whole, store):
        reopened = RunStore(made.path.parent, "cot", {"method": "cot"}, {})
        reopened.finish([q.question_id for q in questions], lambda frame: Metrics(), {})
        frames.append(load_run_directory(made.path).predictions)
    assert frames[0].equals(frames[1])
    assert frames[1]["question_id"].n_unique() == len(frames[1]) == 200
    assert frames[1]["prediction"].null_count() == 0 and 0 < frames[1]["forced"].sum() < 200


def count_after_kill(store: RunStore, again: Scripted) -> int:
    """Questions that the parts of the killed run held, which the second one must not have asked."""
    asked_again = {r.question_id for r in again.requests}
    parts = pl.concat([pl.read_parquet(part) for part in store._parts.glob("part-*.parquet")])
    assert parts["question_id"].n_unique() == len(parts)
    return len(set(parts["question_id"]) - asked_again)


class Flushing:
    """Writes a part every seventh prediction."""

    def __init__(self, store: RunStore) -> None:
        self._store, self._count = store, 0

    def append(self, prediction: Prediction) -> None:
        self._store.append(prediction)
        self._count += 1
        if self._count % 7 == 0 or self._count == 200 - len(self._store.answered):
            self._store.flush()


# the comparison
# ---------------------------------------------------------------------------------------


def reasoned(row: int, prediction: str, direct: str, margin: float, tokens: int, **fields: Any) -> Prediction:
    """A prediction of question ``row``, whose answer is B."""
    forced = fields.pop("forced", False)
    base = Prediction(
        question_id=f"Math/test/{row}",
        subject="Math",
        supercategory="STEM",
        split="test",
        row=row,
        answer="B",
        prediction=prediction,
        correct=prediction == "B",
        read_by="forced" if forced else "final_line",
    )
    return replace(
        base,
        forced=forced,
        direct_prediction=direct,
        margin=margin,
        output_tokens=tokens + 1,
        texts=["..."],
        **fields,
    )


def test_comparison_of_a_full_run_is_this() -> None:
    frame = predictions_frame(
        [
            reasoned(0, "B", "A", 0.1, 100),
            reasoned(1, "B", "B", 0.2, 100, forced=True),
            reasoned(2, "A", "B", 0.3, 300),
            reasoned(3, "B", "C", 0.4, 500),
        ]
    )
    result = compare_reasoning(frame, seconds=12.0, direct_seconds=2.0)
    assert result is not None and result.read_by is not None
    assert dict(result.read_by) == {"strict": 3, "lenient": 0, "forced": 1, "unparsed": 0, "direct": 0}
    assert result.rungs == {"final_line": 3, "forced": 1}
    ways = {f"{row.way} {row.below or ''}".strip(): row for row in result.ways}
    picked = {
        name: (row.accuracy, row.output_tokens, row.seconds, row.reasoned) for name, row in ways.items()
    }
    assert picked["direct"] == (0.5, 4, 2.0, 0)
    assert picked["full"] == (0.75, 1004, 12.0, 4)
    assert picked["full_unforced"] == (0.5, 1004, 12.0, 4)
    assert picked["what_if 0.3"] == (0.75, 204, 4.0, 2)  # rows 0 and 1 reasoned, 2 and 3 direct: B B B C
    assert ways["what_if 0.3"].estimated and not ways["full"].estimated
    text = "\n".join(reasoning_text.reasoning_lines(result, get_translator("en", "report", "summary")))
    assert "strict 3, lenient 0, forced 1, unparsed 0" in text and "~4.0" in text


def test_comparison_of_a_budgeted_run_has_its_own_row() -> None:
    direct = replace(reasoned(1, "B", "B", 2.0, 0), texts=None, read_by="loglikelihood")
    result = compare_reasoning(predictions_frame([reasoned(0, "B", "A", 0.1, 100), direct]))
    assert result is not None and result.read_by is not None
    assert dict(result.read_by) == {"strict": 1, "lenient": 0, "forced": 0, "unparsed": 0, "direct": 1}
    assert [(row.way, row.accuracy, row.reasoned, row.output_tokens, row.seconds) for row in result.ways] == [
        ("direct", 0.5, 0, 2, None),
        ("budgeted", 1.0, 1, 102, None),
    ]


def test_comparison_of_samples_and_rotations() -> None:
    rows = [
        reasoned(0, "B", "A", 0.1, 100, sample_predictions=["A", "B", "B", "B"], confidence=0.75),
        reasoned(1, "A", "A", 0.1, 100, sample_predictions=["A", "A", "B", "A"], confidence=0.75),
    ]
    sampled = compare_reasoning(predictions_frame(rows))
    assert sampled is not None and sampled.samples is not None
    assert sampled.samples.model_dump(exclude={"average", "stopping", "drawn"}) == {
        "num_samples": 4,
        "accuracy_first_sample": 0.0,
        "accuracy_majority": 0.5,
        "accuracy_any_sample": 1.0,
        "agreement": 0.75,
    }
    plain = [
        replace(
            row,
            texts=None,
            direct_prediction=None,
            sample_predictions=None,
            read_by="loglikelihood",
            debiased_prediction="B",
        )
        for row in rows
    ]
    result = compare_reasoning(predictions_frame(plain))
    assert result is not None and result.rotations is not None
    assert set(result.to_json()) == {"rotations"}
    assert (
        result.rotations.accuracy_raw,
        result.rotations.accuracy_debiased,
        result.rotations.changed,
    ) == (0.5, 1.0, 1)
    assert "accuracy raw 0.5000, debiased 1.0000; 1 letters changed" in reasoning_text.reasoning_lines(
        result, get_translator("en", "report", "summary")
    )
    assert compare_reasoning(predictions_frame([replace(plain[0], debiased_prediction=None)])) is None


def test_direct_answers_are_timed_on_a_twentieth_of_the_questions(tokenizer: Any) -> None:
    method = build_chain_of_thought("qa", tokenizer)
    asked, _ = render_and_tokenise([make_question(i) for i in range(400)], {"Math": []}, method, tokenizer)
    engine = Scripted(CANNOT_BE_READ)
    seconds = runner.time_direct_answers(engine, asked, method, None)
    assert seconds is not None and seconds > 0
    assert [r.stage for r in engine.requests] == ["letters"] * 20
    assert engine.requests[0].token_ids == tuple(asked[0].token_ids[1])
    assert runner.time_direct_answers(engine, [], method, None) is None


def test_one_method_serves_base_and_adapters(tokenizer: Any) -> None:
    from kmmlu_fast.core.schema import Adapter

    adapter = Adapter(name="lora", path=Path("lora"), adapter_id=1, rank=8, digest="0" * 16)
    method: ChainOfThought = build_chain_of_thought("qa", tokenizer, below=9.0)
    asked, _ = render_and_tokenise([make_question()], {"Math": []}, method, tokenizer)
    engine = Scripted(CANNOT_BE_READ)
    ask_questions(engine, asked, method, adapter, Kept())
    assert [r.stage for r in engine.requests] == ["letters", "reason", "forced-0"]
    assert {r.adapter for r in engine.requests} == {adapter}


# settled votes, thinking budgets
# ---------------------------------------------------------------------------------------


def cycle_texts(*texts: str) -> Callable[[Request], Sequence[str]]:
    """Each generated text is the next of these, round by round."""
    source = iter(texts)
    return lambda request: [next(source) for _ in range(text_of(request).num_samples)]


def test_samples_stop_where_the_vote_is_settled_and_the_vote_is_that_of_all(tokenizer: Any) -> None:
    texts = ("정답: B\n", "정답: B\n", CANNOT_BE_READ, "정답: B\n", "정답: D\n")
    method = build_chain_of_thought("qa", tokenizer, num_samples=5, temperature=0.7, vote_stopping="exact")
    engine = Scripted(cycle_texts(*texts), lambda request: (-1.0, -2.0, -3.0, -4.0))
    (prediction,) = ask(engine, method, [make_question()], tokenizer)
    assert [r.stage for r in engine.requests] == ["letters", "reason", "forced-2", "reason-3"]
    assert [text_of(r).num_samples for r in engine.requests if r.stage.startswith("reason")] == [3, 1]
    seeds = [text_of(r).seed for r in engine.requests if r.stage.startswith("reason")]
    assert len(set(seeds)) == 2 and None not in seeds
    assert prediction.sample_predictions == ["B", "B", "A", "B"] and prediction.prediction == "B"
    assert prediction.texts == list(texts[:4]) and prediction.confidence == 0.75
    assert prediction.sample_tokens == [len(text) for text in texts[:4]]
    forced = next(r for r in engine.requests if r.stage == "forced-2")
    reason = next(r for r in engine.requests if r.stage == "reason")
    written = tuple(ord(c) % 200 + 5 for c in CANNOT_BE_READ)
    assert forced.token_ids == (*reason.token_ids, *written, *method.force_ids)


@pytest.mark.parametrize("unreadable", [(0, 1, 2), (0, 2), (1,)])
def test_several_unread_texts_are_forced_one_after_the_other(
    unreadable: tuple[int, ...], tokenizer: Any
) -> None:
    texts = [CANNOT_BE_READ if place in unreadable else "정답: A\n" for place in range(3)]
    method = build_chain_of_thought("qa", tokenizer, num_samples=5, temperature=0.7, vote_stopping="exact")
    engine = Scripted(cycle_texts(*texts), lambda request: (-1.0, -2.0, -3.0, -4.0))
    (prediction,) = ask(engine, method, [make_question()], tokenizer)
    assert [r.stage for r in engine.requests][2:] == [f"forced-{place}" for place in unreadable]
    assert prediction.sample_predictions == ["A", "A", "A"]


def test_votes_stop_with_a_direct_margin_too(tokenizer: Any) -> None:
    method = build_chain_of_thought(
        "qa", tokenizer, num_samples=3, temperature=0.7, vote_stopping="exact", below=1.0
    )
    engine = Scripted(cycle_texts("정답: A\n", "정답: A\n"), lambda request: (-1.0, -1.1, -3.0, -4.0))
    (prediction,) = ask(engine, method, [make_question()], tokenizer)
    assert [r.stage for r in engine.requests] == ["letters", "reason"]
    assert prediction.sample_predictions == ["A", "A"]


def test_a_text_is_cut_at_every_budget_and_forced(tokenizer: Any) -> None:
    text = "1을 더하면 하나이다.\n정답: B\n"
    method = build_chain_of_thought("qa", tokenizer, budgets=(0, 5, 400))
    engine = Scripted(text, lambda request: (-1.0, -2.0, -0.5, -4.0))
    (prediction,) = ask(engine, method, [make_question()], tokenizer)
    assert [r.stage for r in engine.requests] == ["letters", "reason", "budget-0-0", "budget-5-0"]
    reason, none, five = engine.requests[1:]
    written = tuple(ord(c) % 200 + 5 for c in text)
    assert none.token_ids == (*reason.token_ids, *method.force_ids)
    assert five.token_ids == (*reason.token_ids, *written[:5], *method.force_ids)
    assert prediction.budgets == [0, 5, 400] and prediction.budget_predictions == ["C", "C", "B"]
    assert prediction.prediction == "B" and prediction.sample_tokens == [len(text)]
    plain = build_chain_of_thought("qa", tokenizer)
    assert {**plain.decoding([]), "thinking_budgets": [0, 5, 400]} == method.decoding([])


def test_samples_vote_at_each_budget(tokenizer: Any) -> None:
    method = build_chain_of_thought("qa", tokenizer, num_samples=3, temperature=0.7, budgets=(3,))
    texts = ("정답: D\n", "정답: D\n", "정답: A\n")
    letters = {"budget-3-0": "B", "budget-3-1": "C", "budget-3-2": "C"}

    def scored(request: Request) -> Sequence[float]:
        return [-0.1 if letter == letters.get(request.stage, "A") else -5.0 for letter in LETTERS]

    (prediction,) = ask(Scripted(lambda request: texts, scored), method, [make_question()], tokenizer)
    assert (prediction.prediction, prediction.budget_predictions) == ("D", ["C"])


def test_a_thought_is_closed_where_a_cut_leaves_it_open(qwen: Any) -> None:
    text = "생각 중이다</think>\n정답: B\n"

    class Tokenised(Scripted):
        def _answer(self, request: Request) -> Response:
            response = super()._answer(request)
            ids = tuple(qwen.encode(text, add_special_tokens=False))
            whole = tuple(replace(each, token_ids=ids) for each in response.completions)
            return replace(response, completions=whole)

    closing = len(qwen.encode("생각 중이다</think>", add_special_tokens=False))
    method = build_chain_of_thought("chat", qwen, thinking=True, budgets=(4, closing - 1, closing))
    engine = Tokenised(text)
    ask(engine, method, [make_question()], qwen)
    cuts = [r for r in engine.requests if r.stage.startswith("budget")]
    ended = [r.token_ids[-len(method.force_ids) - len(method.think_end_ids) :] for r in cuts]
    end = (*method.think_end_ids, *method.force_ids)
    assert [tail == end for tail in ended] == [True, True, False]


def test_a_mark_whose_tokens_depend_on_what_stands_around_it_is_refused(
    qwen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmmlu_fast.prompting import cot_tokens

    def glued(tokenizer: Any, prompt: Any, text: str) -> list[int]:
        return [1, 2] if text == "</think>" else [ord(c) for c in text]

    build_chain_of_thought("chat", qwen, thinking=True, budgets=(9,))
    monkeypatch.setattr(cot_tokens, "continuation_ids", glued)
    with pytest.raises(ConfigError, match=r"--thinking-budgets: .* leave the flag out"):
        cot_tokens._mark_ids(qwen, "</think>")
