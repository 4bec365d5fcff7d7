"""--letter-form through a whole evaluation with a fake engine: fingerprints, files, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.runs.store import load_run_directory


def run(model: Path, root: Path, *flags: str) -> Any:
    argv = [
        "--model",
        str(model),
        "--dataset",
        "sample",
        "--subjects",
        "Law",
        "--output-dir",
        str(root),
        *flags,
    ]
    (found,) = run_evaluation(parse_config(EvalConfig, argv, "eval"), lambda *arguments: FakeEngine())
    return found


def test_both_forms_are_stored_and_the_scored_one_decides(model: Path, tmp_path: Path) -> None:
    plain = run(model, tmp_path)
    stored = pl.read_parquet(plain.path / "predictions.parquet")
    assert stored["spaced_logprobs"].list.len().to_list() == [4] * len(stored)
    assert stored["spaced_logprobs"].list.first().to_list() == stored["logprob_A"].to_list()
    forms = plain.metrics.letter_forms
    assert forms.scored == "lm-eval" and forms.questions == len(stored)
    assert forms.spaced.accuracy == plain.metrics.micro.accuracy
    assert forms.either.mass == pytest.approx(forms.spaced.mass + forms.bare.mass)
    either = run(model, tmp_path, "--letter-form", "either")
    assert either.metrics.micro.accuracy == forms.either.accuracy
    assert either.metrics.letter_forms.scored == "either"


def test_the_styles_own_form_is_the_same_run_and_another_form_another_one(
    model: Path, tmp_path: Path
) -> None:
    plain = run(model, tmp_path)
    assert run(model, tmp_path, "--letter-form", "lm-eval").path == plain.path
    bare = run(model, tmp_path, "--letter-form", "bare")
    assert bare.path != plain.path
    assert bare.facts["decoding"] == {"letter_form": "bare"} and plain.facts["decoding"] == {}
    assert bare.metrics.letter_forms.bare.accuracy == bare.metrics.micro.accuracy


def test_rotations_average_what_is_scored(model: Path, tmp_path: Path) -> None:
    turned = run(model, tmp_path, "--letter-form", "either", "--rotations", "4")
    assert turned.metrics.letter_forms.scored == "either"
    assert turned.facts["decoding"] == {"letter_form": "either", "rotations": 4}


def test_a_text_has_no_scored_form(model: Path, tmp_path: Path) -> None:
    for output_type in ("generate_until", "cot"):
        with pytest.raises(ConfigError, match="--letter-form goes with --output-type multiple_choice"):
            run(model, tmp_path, "--letter-form", "bare", "--output-type", output_type)
    found = run(model, tmp_path, "--output-type", "generate_until")
    assert found.metrics.letter_forms is None
    assert "spaced_mass" not in pl.read_parquet(found.path / "predictions.parquet").columns


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (pl.lit(1.5).alias("bare_mass"), "bare_mass 1.5, which is not a share"),
        (pl.lit(None, pl.Float64).alias("bare_mass"), "lacks bare_mass or bare_logprobs"),
        (pl.col("spaced_logprobs").list.head(3), "not one log-probability per option"),
        (pl.lit([0.5, -1.0, -1.0, -1.0]).alias("bare_logprobs"), "not one log-probability per option"),
    ],
)
def test_damaged_forms_are_refused(change: pl.Expr, problem: str, model: Path, tmp_path: Path) -> None:
    found = run(model, tmp_path)
    path = found.path / "predictions.parquet"
    pl.read_parquet(path).with_columns(change).write_parquet(path)
    with pytest.raises(RunError, match=problem):
        load_run_directory(found.path)


def test_a_run_of_an_earlier_version_is_still_read(model: Path, tmp_path: Path) -> None:
    found = run(model, tmp_path)
    path = found.path / "predictions.parquet"
    names = ["spaced_logprobs", "bare_logprobs", "spaced_mass", "bare_mass"]
    pl.read_parquet(path).drop(names).write_parquet(path)
    old = load_run_directory(found.path)
    assert old.frame["spaced_mass"].null_count() == len(old.frame)
    assert run(model, tmp_path).path == found.path  # and reused
