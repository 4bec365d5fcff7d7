"""train_data: the bytes of evaluation, letters that follow their options, nothing truncated in
silence, one order a seed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import tiny

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.data.training_rows import TrainingRow, Turn
from kmmlu_fast.prompting import prompts
from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
from kmmlu_fast.prompting.methods import GenerateUntil, MultipleChoice
from kmmlu_fast.prompting.prompt_styles import STYLES
from kmmlu_fast.training import encoding as train_data
from kmmlu_fast.training import order as order_of
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.encoded import MASKED, EncodedRow
from kmmlu_fast.training.row_length import check_trainable, fit_length


def make_rows(count: int, answers: str = "ABCD") -> list[SftRow]:
    options = ("바람", "구름", "호수", "등대")
    return [
        SftRow(
            question=Question(
                question_id=f"Law/train/{i}",
                subject="Law",
                supercategory="HUMSS",
                split="train",
                row=i,
                question=f"  {i}번 문항은? " + "긴 " * (i % 7),
                options=options,
                answer=answers[i % len(answers)],
            ),
            strategy="uniform",
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("bos", [True, False])
def test_a_row_starts_with_the_very_tokens_that_evaluation_sends(style: str, bos: bool) -> None:
    tokenizer = tiny.make_tiny_tokenizer(bos=bos, chat=True)
    rows = make_rows(9)
    encoded = train_data.encode_question_rows(rows, tokenizer, style)
    letters = train_data.letter_ids(rows, tokenizer, style)
    for method in (MultipleChoice(style, tuple(ids[0] for ids in letters)), GenerateUntil(style)):
        for row, trained in zip(rows, encoded, strict=True):
            asked = prompts.encode_prompts(tokenizer, method.render(row.question, [], tokenizer))
            request = method.start(row.question, asked, None)[0]
            assert trained.input_ids[: trained.prompt_tokens] == request.token_ids
            assert (trained.input_ids[0] == tokenizer.convert_tokens_to_ids("<|bos|>")) == (
                bos and style != "chat"
            )
    # what follows is the very token that evaluation scores, and the end
    for row, trained in zip(rows, encoded, strict=True):
        expected = letters[LETTERS.index(row.question.answer)]
        end = tokenizer.convert_tokens_to_ids("<|im_end|>" if style == "chat" else "<|eos|>")
        assert list(trained.input_ids[trained.prompt_tokens :]) == [*expected, end]
        assert trained.labels == [MASKED] * trained.prompt_tokens + [*expected, end]


def test_a_rationale_is_trained_on_as_it_stands() -> None:
    tokenizer = tiny.make_tiny_tokenizer()
    row = replace(make_rows(1)[0], response="바람이 먼저다.\n정답: A")
    encoded = train_data.encode_question_rows([row], tokenizer, "lm-eval")[0]
    assert tokenizer.decode([i for i in encoded.labels if i != MASKED]) == " 바람이 먼저다.\n정답: A<|eos|>"
    method = build_chain_of_thought("lm-eval", tokenizer)  # asked as evaluation with --output-type cot asks
    asked = prompts.encode_prompts(tokenizer, method.render(row.question, [], tokenizer))
    reason = next(request for request in method.start(row.question, asked, None) if request.stage == "reason")
    assert encoded.input_ids[: encoded.prompt_tokens] == reason.token_ids


@pytest.mark.parametrize("target", LETTERS)
def test_rotation_moves_the_answer_with_its_option(target: str) -> None:
    row = make_rows(1, "B")[0]
    turned = order_of.rotate_row_options(row, target)
    assert turned.question.options[LETTERS.index(target)] == row.question.options[1]
    assert turned.question.answer == target
    assert sorted(turned.question.options) == sorted(row.question.options)
    assert (
        order_of.rotate_row_options(replace(row, response="A는 아니다. 정답: B"), target).question
        == row.question
    )  # it names letters


def test_letters_are_balanced_in_every_batch_and_new_for_a_row_each_time() -> None:
    order = order_of.order_rows([10 + i % 7 for i in range(160)], 40, 16, seed=1)
    rows = [i % 40 for i in order]
    letters = order_of.balanced_letters(rows, 16, seed=1)
    for start in range(0, 160, 16):
        counts = Counter(letters[start : start + 16])
        assert max(counts.values()) - min(counts[letter] for letter in LETTERS) <= 3, counts
    assert Counter(letters) == dict.fromkeys(LETTERS, 40)
    seen: dict[int, set[str]] = {}
    for row, letter in zip(rows, letters, strict=True):
        seen.setdefault(row, set()).add(letter)
    assert all(letters == set(LETTERS) for letters in seen.values())
    assert (
        letters == order_of.balanced_letters(rows, 16, seed=1) != order_of.balanced_letters(rows, 16, seed=2)
    )


def test_held_out_rows_are_never_trained_on_even_in_another_order() -> None:
    rows = make_rows(40)
    repeated = rows + [replace(order_of.rotate_row_options(row, "C"), repeat=1) for row in rows[:20]]
    train, held = order_of.split_held_out(repeated, 8, seed=3)
    assert len(held) == 8 and Counter(row.question.answer for row in held) == dict.fromkeys(LETTERS, 2)
    assert not {row.question.question_id for row in train} & {row.question.question_id for row in held}
    assert len(train) == len(repeated) - sum(2 if row.question.row < 20 else 1 for row in held)
    assert order_of.split_held_out(repeated, 8, seed=3) == (train, held)
    assert order_of.split_held_out(repeated, 8, seed=4)[1] != held
    assert len(order_of.split_held_out(rows, 1000, seed=3)[1]) == 8  # a fifth at most
    assert order_of.split_held_out(rows, 0, seed=3) == (rows, [])


def encoded_row(prompt: int, response: int = 2, bos: int | None = 1) -> EncodedRow:
    ids = tuple(
        ([bos] if bos is not None else [])
        + list(range(100, 100 + prompt - (bos is not None)))
        + [7] * response
    )
    return EncodedRow(question_id="Law/train/0", answer="A", input_ids=ids, prompt_tokens=prompt)


def test_too_long_rows_are_left_out_and_counted_and_cut_only_if_asked() -> None:
    kept, report = fit_length([encoded_row(10), encoded_row(4)], 8, "truncate", bos_id=1)
    assert kept == [encoded_row(4)]
    assert report == {
        "policy": "truncate",
        "max_seq_length": 8,
        "rows_too_long": 1,
        "rows_left_out": 1,
        "question_ids": ["Law/train/0"],
    }
    (cut, _), report = fit_length([encoded_row(10), encoded_row(4)], 8, "cut", bos_id=1)
    assert cut.input_ids == (1, 104, 105, 106, 107, 108, 7, 7)
    assert (cut.prompt_tokens, cut.cut_tokens, report["rows_left_out"]) == (6, 4, 0)
    ((without_bos,), _) = fit_length([encoded_row(10, bos=None)], 8, "cut", bos_id=None)
    assert without_bos.input_ids == (104, 105, 106, 107, 108, 109, 7, 7)
    ((end,), _) = fit_length([encoded_row(3, response=9)], 10, "cut", bos_id=1)
    assert len(end.input_ids) == 10 and end.labels.count(7) == 8  # one token of the prompt must stay
    assert len(fit_length([encoded_row(10), encoded_row(4)], 8, "drop", bos_id=1)[0]) == 1
    with pytest.raises(TrainError, match=r"Law/train/0 has 12 tokens, more than --max-seq-length 8"):
        fit_length([encoded_row(10)], 8, "refuse", bos_id=1)


def test_all_masked_rows_are_refused_by_name() -> None:
    with pytest.raises(TrainError, match=r"1 rows have every token masked.*Law/train/0"):
        check_trainable([encoded_row(5), encoded_row(5, response=0)])


def test_the_order_is_a_function_of_the_seed_and_covers_every_epoch() -> None:
    lengths = [10 + (i * 37) % 90 for i in range(100)] * 3
    order = order_of.order_rows(lengths, 100, 16, seed=5)
    assert (
        order
        == order_of.order_rows(lengths, 100, 16, seed=5)
        != order_of.order_rows(lengths, 100, 16, seed=6)
    )
    assert sorted(order) == list(range(300))
    batches = [order[i : i + 16] for i in range(0, 300, 16)]
    assert len(batches) == 19 and len(batches[-1]) == 300 - 18 * 16
    assert max(lengths[i] for i in batches[0]) == max(lengths)  # memory runs out at once, or not at all
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    unsorted = sum(max(lengths[i : i + 16]) * len(lengths[i : i + 16]) for i in range(0, 300, 16))
    assert padded - sum(lengths) < 0.5 * (
        unsorted - sum(lengths)
    )  # sorting by length saves more than half of the padding


def test_the_order_survives_fewer_rows_than_a_batch() -> None:
    assert sorted(order_of.order_rows([5, 6, 7], 3, 16, seed=0)) == [0, 1, 2]


def test_only_questions_of_a_mixture_are_rotated(caplog: pytest.LogCaptureFixture) -> None:
    """Over four epochs each question stands under four letters, balanced among the questions of a batch; the
    chats keep their place in the order and their text."""
    caplog.set_level("INFO", logger="kmmlu_fast")
    chats = [
        TrainingRow(
            turns=(Turn("user", f"{i}번 말?"), Turn("assistant", f"답 {i}.")),
            source="chats.jsonl",
            number=i,
            form="messages",
        )
        for i in range(8)
    ]
    questions = make_rows(8)
    mixed = [row for pair in zip(chats, questions, strict=True) for row in pair]
    settings = {"data": ["x"], "num_train_epochs": 4, "effective_batch": 4}
    tokenizer = tiny.make_tiny_tokenizer(chat=True)
    plain = train_data.encode_training_set(TrainConfig(**settings), mixed, [], tokenizer)
    caplog.clear()
    rotated = train_data.encode_training_set(
        TrainConfig(**settings, rotate_options=True), mixed, [], tokenizer
    )
    before = [plain.rows[i] for i in plain.order]
    after = [rotated.rows[i] for i in rotated.order]
    assert [row.question_id for row in before] == [row.question_id for row in after]
    assert all(one == other for one, other in zip(before, after, strict=True) if not one.answer)
    by_question: dict[str, list[str]] = {}
    for row in after:
        if row.answer:
            by_question.setdefault(row.question_id, []).append(row.answer)
    assert len(by_question) == 8 and all(sorted(letters) == [*"ABCD"] for letters in by_question.values())
    assert "--rotate-options is for questions; 8 of the 16 rows have no options" in caplog.text


def test_rotating_nothing_changes_nothing() -> None:
    chats = [
        TrainingRow(turns=(Turn("user", "말?"), Turn("assistant", "답.")), source="c", number=1, form="m")
    ]
    tokenizer = tiny.make_tiny_tokenizer(chat=True)
    plain, rotated = (
        train_data.encode_training_set(TrainConfig(data=["x"], rotate_options=on), chats, [], tokenizer)
        for on in (False, True)
    )
    assert plain == rotated
