"""Witnesses against a key are base models of several vendors, not copies."""

import numpy as np
import polars as pl
import pytest
from made_runs import loaded, predictions

from kmmlu_fast.analysis.key_audit import (
    MIN_VENDORS,
    _group_errors,
    _redraw_errors,
    _Witnesses,
    audit_key,
    base_model_name,
    vendor_name,
)
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.recipe_text import key_audit_lines
from kmmlu_fast.runs.run import Run

MODELS = ("gpt-5", "claude-haiku", "llama-3", "phi-4", "qwen3-8b", "exaone-4")


def witness(name: str, seed: int, wrong_key: str | None = None, **facts: object) -> Run:
    """Right or wrong by its own chance; on ``wrong_key`` it gives another letter than the key."""
    random = np.random.default_rng(seed)
    frame = predictions(1)
    count = len(frame)
    letters = frame["answer"].to_numpy().copy()
    off = random.random(count) < 0.5
    shift = random.integers(1, 4, count)
    places = np.array(["ABCD".index(letter) for letter in letters])
    given = np.where(off, (places + shift) % 4, places)
    given = np.where(frame["question_id"].to_numpy() == wrong_key, (places + 1) % 4, given)
    frame = frame.with_columns(
        pl.Series("prediction", [("ABCD")[place] for place in given]), pl.lit(0.9).alias("confidence")
    ).with_columns((pl.col("prediction") == pl.col("answer")).alias("correct"))
    return loaded(name, frame, **facts)


def test_copies_of_one_model_are_one_witness() -> None:
    """A base and its six adapters, which answer alike: nothing is doubted."""
    base = witness("base", 1, model="owner/m")
    copies = [loaded(f"a{i}", base.frame, model="owner/m", adapter_digest=str(i)) for i in range(6)]
    audit = audit_key([base, *copies])
    assert audit is None or not audit.against_key
    of_one_vendor = [witness(f"gpt-{i}", i, "Law/test/7") for i in range(6)]
    audit = audit_key(of_one_vendor)
    assert audit is not None and not audit.against_key and not audit.enough_witnesses
    assert "at least five vendors" in key_audit_lines(audit, get_translator("en"))[0]


def test_a_wrong_key_is_found_by_five_vendors_and_chance_is_counted() -> None:
    audit = audit_key([witness(name, seed, "Law/test/7") for seed, name in enumerate(MODELS)])
    assert audit is not None and audit.vendors == len(MODELS) >= MIN_VENDORS
    assert audit.against_key[0][0] == "Law/test/7"
    assert audit.expected_by_chance <= 0.1 * len(audit.against_key) or audit.agreement == 1.0
    assert "By chance alone" in key_audit_lines(audit, get_translator("en"))[0]


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("gpt-4o-mini-240718-5shot", "openai"),
        ("o3-mini", "openai"),
        ("claude-haiku-4-5", "anthropic"),
        ("phi-3-5-moe-instruct", "microsoft"),
        ("skt/a.x-4.0-light", "skt"),
        ("newcomer/model-7b", "newcomer"),
        ("unheard-of-7b", "unheard"),
    ],
)
def test_vendors(name: str, vendor: str) -> None:
    assert vendor_name(name) == vendor


def test_prompts_and_adapters_of_a_model_share_its_name() -> None:
    names = ("gpt-4o-mini-240718", "gpt-4o-mini-240718-5shot")
    assert len({base_model_name(loaded(name, predictions(1))) for name in names}) == 1
    tuned = loaded("lora", predictions(1), model="/models/owner/m", adapter_digest="x")
    assert base_model_name(tuned) == base_model_name(loaded("base", predictions(1), model="owner/m"))


def test_chance_redraws_the_wrong_letters_of_each_model_within_each_key() -> None:
    random = np.random.default_rng(7)
    key, letters = random.integers(0, 4, 400), random.integers(-1, 4, (400, 3))
    names = [str(place) for place in range(400)]
    made = _Witnesses(names, key, letters, np.ones(400), ["a", "b", "c"])
    drawn = _redraw_errors(letters, _group_errors(made), random)
    kept = (letters == key[:, None]) | (letters < 0)
    assert (drawn[kept] == letters[kept]).all() and (drawn != letters).mean() > 0.2
    for model in range(3):
        for code in range(4):
            wrong = (key == code) & ~kept[:, model]
            assert sorted(drawn[wrong, model]) == sorted(letters[wrong, model])


def test_conflicting_keys_are_left_out_of_accuracy_without_any_witness() -> None:
    run = witness("gpt-5", 1)
    questions = run.frame.select("question_id", "subject", "split", "row", "answer").with_columns(
        question=pl.concat_str(pl.lit("문제 "), "question_id"),
        **{letter: pl.concat_str(pl.lit(f"{letter} "), "question_id") for letter in "ABCD"},
    )
    first, other = (
        run.frame.filter(pl.col("answer") == letter, "correct").row(0, named=True)["question_id"]
        for letter in "AB"
    )
    text = pl.when(pl.col("question_id") == other).then(pl.lit(first)).otherwise("question_id")
    questions = questions.with_columns(
        question=pl.concat_str(pl.lit("문제 "), text),
        **{letter: pl.concat_str(pl.lit(f"{letter} "), text) for letter in "ABCD"},
    )
    audit = audit_key([run], questions)
    assert audit is not None and set(audit.conflicting) == {first, other} and not audit.against_key
    rest = run.frame.filter(~pl.col("question_id").is_in([first, other]))
    assert audit.accuracy[0][2] == pytest.approx(float(rest["correct"].mean()))  # type: ignore[arg-type]
    assert audit.accuracy[0][1] == pytest.approx(float(run.frame["correct"].mean()))  # type: ignore[arg-type]
