"""Real vLLM on exams of five, and of two to ten options, with a tiny model: letters and log-probabilities
are lm-eval's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exam_files import options_of, place_of, write_jsonl
from tiny import make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation

pytestmark = pytest.mark.engine
LETTERS = "ABCDEFGHIJ"
NEAR_TIE = 0.02  # nats
COUNTS = {"five": [5], "mixed": list(range(2, 11))}


class Shared:
    """An engine that an evaluation may close and the next one still finds open."""

    def __init__(self, engine: VllmEngine) -> None:
        self.generate, self.stats = engine.generate, engine.stats

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    make_tiny_model(folder / "base", letters=LETTERS)
    for name, counts in COUNTS.items():
        rows = []
        for row in range(45):
            count = counts[row % len(counts)]
            answer = LETTERS[place_of(row, count)]
            rows.append(
                {
                    "question": f"{row}번째 물음은 무엇인가?",
                    "options": options_of(row, count),
                    "answer": answer,
                }
            )
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[VllmEngine]:
    opened = VllmEngine(EngineSettings(model=str(root / "base"), dtype="float32", max_model_len=1024))
    yield opened
    opened.close()


def lm_eval(root: Path, name: str) -> dict[int, list[float]]:
    """Log-likelihoods of every letter by row, by lm-eval's own task machinery and its own hf backend."""
    from datasets import load_dataset
    from lm_eval import evaluator
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    assert load_dataset("json", data_files={"test": str(root / f"{name}.jsonl")})["test"].num_rows == 45
    options = "{% for text in options %}\n{{ 'ABCDEFGHIJ'[loop.index0] }}. {{ text }}{% endfor %}"
    task = ConfigurableTask(
        config={
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(root / f"{name}.jsonl")}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{question.strip()}}" + options + "\n정답：",
            "doc_to_choice": "{{ 'ABCDEFGHIJ'[:options|length]|list }}",
            "doc_to_target": "{{ 'ABCDEFGHIJ'.index(answer) }}",
        }
    )
    lm = HFLM(pretrained=str(root / "base"), dtype="float32", device="cpu", batch_size=16)
    samples = evaluator.evaluate(lm=lm, task_dict={name: task}, log_samples=True, bootstrap_iters=0)[
        "samples"
    ][name]
    return {
        sample["doc_id"]: [float(response[0]) for response in sample["filtered_resps"]] for sample in samples
    }


def agree(name: str, frame: pl.DataFrame, expected: dict[int, list[float]], tolerance: float) -> None:
    """Every letter's log-probability within the tolerance, and the same letter but for near-ties."""
    assert len(frame) == 45 == len(expected) and set(frame["num_options"]) == set(COUNTS[name])
    for row in frame.iter_rows(named=True):
        four = [row[f"logprob_{letter}"] for letter in "ABCD"]
        logprobs = row["option_logprobs"] or [value for value in four if value is not None]
        scores = expected[row["row"]]
        assert logprobs == pytest.approx(scores, abs=tolerance) and row["read_by"] == "loglikelihood"
        best = LETTERS[max(range(len(scores)), key=scores.__getitem__)]
        assert best == row["prediction"] or row["margin"] < NEAR_TIE


def flags(root: Path, name: str, *more: str) -> EvalConfig:
    argv = ["--model", str(root / "base"), "--exam", str(root / f"{name}.jsonl"), "--dtype", "float32"]
    return parse_config(EvalConfig, [*argv, "--output-dir", str(root / "runs"), *more], "eval")


@pytest.mark.parametrize("name", COUNTS)
def test_log_probabilities_by_vllm_are_lm_evals(name: str, engine: VllmEngine, root: Path) -> None:
    open_shared: Any = lambda adapters, length, path: Shared(engine)  # noqa: E731
    (run,) = run_evaluation(flags(root, name), open_shared)
    agree(name, run.frame, lm_eval(root, name), 1e-2)


@pytest.mark.parametrize("name", COUNTS)
def test_log_probabilities_by_transformers_are_lm_evals(name: str, root: Path) -> None:
    (run,) = run_evaluation(flags(root, name, "--engine", "transformers"))
    agree(name, run.frame, lm_eval(root, name), 1e-4)
