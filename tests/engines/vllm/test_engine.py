"""Real vLLM on the CPU with a tiny model: parity with lm-eval, serve against merge, killed and continued, and
its errors.

One engine with LoRA serves this whole file; the merged copy and the killed command need engines of their own.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engine_cases import LETTER_IDS
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import AdapterError, EngineError
from kmmlu_fast.core.schema import (
    LETTERS,
    LOGPROB_COLUMNS,
    Adapter,
    Candidates,
    Continuation,
    Generation,
    Request,
)
from kmmlu_fast.data.dataset import load_questions
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory

pytestmark = [pytest.mark.engine, pytest.mark.alone]
SAMPLE = Path(__file__).parents[3] / "kmmlu_fast" / "data" / "sample" / "data"
PLANTED = "Accounting,Law,Math"
NEAR_TIE = 0.02  # nats: below this, rounding may choose between two letters


class Shared:
    """An engine that an evaluation may close and the next one still finds open."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self.generate, self.stats = engine.generate, engine.stats

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm")
    make_tiny_model(folder / "base")
    make_tiny_adapter(folder / "base", folder / "lora", seed=1)
    make_tiny_adapter(folder / "base", folder / "zero", scale=0)
    return folder


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[VllmEngine]:
    settings = EngineSettings(
        model=str(root / "base"), dtype="float32", max_model_len=2048, max_lora_rank=4, num_adapters=2
    )
    opened = VllmEngine(settings)
    yield opened
    opened.close()


def run(engine: VllmEngine, root: Path, output: str, *flags: str) -> list[Run]:
    argv = [
        "--model",
        str(root / "base"),
        "--dataset",
        "sample",
        "--dtype",
        "float32",
        "--output-dir",
        str(root / output),
        *flags,
    ]
    return run_evaluation(
        parse_config(EvalConfig, argv, "eval"), lambda adapters, length, path: Shared(engine)
    )


def same_answers(one: pl.DataFrame, two: pl.DataFrame, tolerance: float) -> None:
    """Log-probabilities within the tolerance, and the same letter wherever the margin is more
    than a near-tie.
    """
    joined = one.join(two, on="question_id", suffix="_two")
    assert len(joined) == len(one) == len(two)
    for column in LOGPROB_COLUMNS:
        assert joined.select((pl.col(column) - pl.col(f"{column}_two")).abs().max()).item() < tolerance
    clear = joined.filter(pl.col("margin") > NEAR_TIE)
    assert len(clear) > len(one) * 0.8
    assert clear["prediction"].equals(clear["prediction_two"].alias("prediction"))


def lm_eval(model: Path, num_fewshot: int) -> pl.DataFrame:
    """lm-eval's own kmmlu task on its own hf backend, over the packaged sample's files;
    exemplars in the file's order.
    """
    import yaml
    from datasets import Features, Value
    from lm_eval import evaluator, tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    template = Path(tasks.__file__).parent / "kmmlu" / "default" / "_default_kmmlu_yaml"
    common: dict[str, Any] = yaml.safe_load(template.read_text(encoding="utf-8"))
    columns = ("question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy")
    features = Features(
        {name: Value("int64" if name == "answer" else "string") for name in columns}
    )  # else "8" and "√8" disagree
    task_dict: dict[str, Any] = {}
    stems = [path.name.removesuffix("-test.csv") for path in sorted(SAMPLE.glob("*-test.csv"))]
    for stem in stems:
        files = {split: str(SAMPLE / f"{stem}-{split}.csv") for split in ("dev", "test")}
        own = {
            "task": stem,
            "dataset_path": "csv",
            "dataset_kwargs": {"data_files": files, "features": features},
            "fewshot_config": {"sampler": "first_n"},
        }
        task_dict[stem] = ConfigurableTask(config={**common, **own, "num_fewshot": num_fewshot})
    lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=16)
    samples = evaluator.evaluate(lm=lm, task_dict=task_dict, log_samples=True, bootstrap_iters=0)["samples"]
    rows = []
    for stem in stems:
        subject = {"korean-history": "Korean-History", "math": "Math"}.get(stem, stem)
        for sample in samples[stem]:
            scores = [float(response[0]) for response in sample["filtered_resps"]]
            letter = "ABCD"[max(range(4), key=lambda i, s=scores: s[i])]
            rows.append((f"{subject}/test/{sample['doc_id']}", letter, *scores))
    return pl.DataFrame(rows, schema=["question_id", "prediction", *LOGPROB_COLUMNS], orient="row")


@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_predictions_and_log_probabilities_are_lm_evals(
    engine: VllmEngine, root: Path, num_fewshot: int
) -> None:
    [measured] = run(engine, root, "parity", "--num-fewshot", str(num_fewshot))
    same_answers(measured.predictions, lm_eval(root / "base", num_fewshot), tolerance=1e-2)


def test_few_shot_prefixes_are_computed_once_a_subject(engine: VllmEngine, root: Path) -> None:
    [measured] = run(engine, root, "prefix", "--num-fewshot", "2", "--prompt-style", "qa")
    assert measured.metrics.to_json()["engine"]["prefix_cache_hit_rate"] > 0.2
    assert (
        measured.metrics.to_json()["engine"]["prompt_tokens"] >= measured.predictions["prompt_tokens"].sum()
    )


def test_an_adapter_of_zeros_is_an_error_not_a_result(engine: VllmEngine, root: Path) -> None:
    with pytest.raises(AdapterError, match="changes no log-probability"):
        run(engine, root, "zero-run", "--adapter", str(root / "zero"), "--adapter-mode", "serve")


def test_one_prefill_equals_scoring_the_continuation(engine: VllmEngine) -> None:
    ids, letters = tuple(range(10, 60)), (262, 263, 264, 265)
    requests = [Request(question_id="q", stage="letters", token_ids=ids, want=Candidates(letters))]
    requests += [
        Request(question_id="q", stage=f"continuation-{i}", token_ids=(*ids, letter), want=Continuation(1))
        for i, letter in enumerate(letters)
    ]
    logprobs = {response.request.stage: response.logprobs for response in engine.generate(requests)}
    for i, value in enumerate(logprobs["letters"]):
        assert logprobs[f"continuation-{i}"][0] == pytest.approx(value, abs=1e-4)


def test_a_continuation_of_several_tokens_is_the_chain_of_its_tokens(engine: VllmEngine) -> None:
    context, first, second = tuple(range(20, 50)), 30, 40
    [whole] = engine.generate(
        [Request(question_id="q", stage="whole", token_ids=(*context, first, second), want=Continuation(2))]
    )
    [one] = engine.generate(
        [Request(question_id="q", stage="one", token_ids=context, want=Candidates((first, 5, 6, 7)))]
    )
    [two] = engine.generate(
        [
            Request(
                question_id="q", stage="two", token_ids=(*context, first), want=Candidates((second, 5, 6, 7))
            )
        ]
    )
    assert whole.logprobs[0] == pytest.approx(one.logprobs[0] + two.logprobs[0], abs=1e-4)
    assert not math.isclose(whole.logprobs[0], two.logprobs[0], abs_tol=1e-3)


def test_requests_are_pulled_as_the_engine_takes_them_and_follow_ups_join(engine: VllmEngine) -> None:
    pulled = 0

    def requests() -> Iterator[Request]:
        nonlocal pulled
        for i in range(400):
            pulled += 1
            yield Request(
                question_id=str(i),
                stage="first",
                token_ids=(5, 6, 7 + i % 50),
                want=Candidates((262, 263, 264, 265)),
            )

    def repeat(response: Any) -> list[Request]:
        request = response.request
        return (
            [
                Request(
                    question_id=request.question_id,
                    stage="second",
                    token_ids=(*request.token_ids, 9),
                    want=Generation(max_tokens=3),
                )
            ]
            if request.stage == "first"
            else []
        )

    stream = engine.generate(requests(), repeat)
    next(stream)
    assert pulled < 400
    keys = [response.request.key for response in stream]
    assert len(keys) == 799 and len(set(keys)) == 799


KILLED = """
import sys
from kmmlu_fast.runs import store
from kmmlu_fast.eval import run_eval_command
store.FLUSH_SEC = 0.05
sys.exit(run_eval_command(sys.argv[1:]))
"""


def test_killed_and_started_again_nothing_is_lost_or_asked_twice(engine: VllmEngine, root: Path) -> None:
    flags = [
        "--model",
        str(root / "base"),
        "--dataset",
        "sample",
        "--dtype",
        "float32",
        "--num-fewshot",
        "1",
        "--max-num-seqs",
        "2",
    ]
    command = [sys.executable, "-c", KILLED, *flags, "--output-dir", str(root / "killed")]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 500
    while not list((root / "killed").glob("*/predictions/part-*.parquet")):
        assert first.poll() is None and time.monotonic() < deadline, first.stderr and first.stderr.read()
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    [folder] = [path for path in (root / "killed").glob("*-base-*") if path.is_dir()]
    kept = pl.concat([pl.read_parquet(part) for part in folder.glob("predictions/part-*.parquet")])
    assert 0 < len(kept) < 180
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{len(kept)} of 180 questions were answered before" in second.stderr
    resumed = load_run_directory(folder)
    assert resumed.predictions["question_id"].n_unique() == len(resumed.predictions) == 180
    assert resumed.metrics.to_json()["speed"]["questions"] == 180 - len(kept)
    untouched = resumed.predictions.join(kept, on="question_id", how="semi").sort("question_id")
    assert untouched.equals(kept.sort("question_id"))
    [whole] = run(engine, root, "whole", "--num-fewshot", "1")
    same_answers(resumed.predictions, whole.predictions, tolerance=1e-3)


def test_the_base_stays_the_base_beside_an_adapter_s_requests(engine: VllmEngine, root: Path) -> None:
    [adapter] = load_adapters([str(root / "lora")], resolve_model(str(root / "base")), "serve")
    prompts = [tuple(range(10 + i, 60 + i)) for i in range(12)]

    def asked(*states: Adapter | None) -> dict[str, tuple[float, ...]]:
        requests = [
            Request(
                question_id=f"{state.name if state else 'base'} {i}",
                stage="letters",
                token_ids=prompt,
                want=Candidates(LETTER_IDS),
                adapter=state,
            )
            for i, prompt in enumerate(prompts)
            for state in states
        ]
        return {response.request.question_id: response.logprobs for response in engine.generate(requests)}

    apart = asked(None) | asked(adapter)
    together = asked(None, adapter)
    assert together.keys() == apart.keys() and len(together) == 24
    for name, logprobs in together.items():
        assert logprobs == pytest.approx(apart[name], abs=1e-3)
    shift = max(abs(a - b) for a, b in zip(apart["base 0"], apart[f"{adapter.name} 0"], strict=True))
    assert shift > 0.05


def planted(engine: VllmEngine, root: Path) -> Path:
    """300 questions in the hub's layout whose key is what the adapter answers, but for one in ten: clear of
    near-ties by both states, so that another batch gives the same letters.
    """
    folder = root / "planted"
    folder.mkdir()
    subjects = [SUBJECTS[name] for name in PLANTED.split(",")]
    stems = [subject.stem for subject in subjects]

    def write(rows: list[tuple[str, int]]) -> None:
        for place, stem in enumerate(stems):
            some = [
                {"question": text, "answer": key, **{letter: f"{letter}{text}" for letter in LETTERS}}
                for text, key in rows[place :: len(stems)]
            ]
            for split in ("test", "dev"):
                pl.DataFrame(some if split == "test" else some[:5]).write_csv(folder / f"{stem}-{split}.csv")

    write([(f"{i * 7919 % 10007}?", 1) for i in range(540)])
    flags = ("--dataset", str(folder), "--subjects", PLANTED, "--adapter", f"lora={root / 'lora'}")
    base, lora = run(engine, root, "for-the-key", *flags, "--adapter-mode", "serve")
    clear = base.predictions.join(lora.predictions, on="question_id", suffix="_lora").filter(
        pl.min_horizontal("margin", "margin_lora") > NEAR_TIE
    )
    texts = {
        question.question_id: question.question for question in load_questions(str(folder), "test", subjects)
    }
    keys = {
        texts[question_id]: LETTERS.index(letter) + 1
        for question_id, letter in clear.select("question_id", "prediction_lora").iter_rows()
    }
    assert len(keys) >= 300
    write([(text, key if i % 10 else key % 4 + 1) for i, (text, key) in enumerate([*keys.items()][:300])])
    return folder


def test_killed_before_it_is_decided_it_decides_at_the_same_question(engine: VllmEngine, root: Path) -> None:
    flags = ["--dataset", str(planted(engine, root)), "--subjects", PLANTED]
    flags += ["--adapter", f"lora={root / 'lora'}", "--adapter-mode", "serve", "--until-decided"]
    [_, straight] = run(engine, root, "straight", *flags)
    assert straight.prefix is not None
    decision = straight.prefix.decision
    assert decision["verdict"] == "better" and decision["decided_at"] < 300
    out = root / "undecided"
    words = ["--model", str(root / "base"), "--dtype", "float32", "--max-num-seqs", "2", *flags]
    command = [sys.executable, "-c", KILLED, *words, "--output-dir", str(out)]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 500
    while not list(out.glob("*-lora-*/predictions/part-*.parquet")):
        assert first.poll() is None and time.monotonic() < deadline, first.stderr and first.stderr.read()
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    subprocess.run(command, capture_output=True, text=True, check=True)
    runs = {
        ("lora" if path.name.count("-lora-") else "base"): load_run_directory(path, prefix=True)
        for path in out.iterdir()
        if not path.name.startswith(".")  # locks, and what the command led to
    }
    assert runs["lora"].prefix is not None
    interim = runs["lora"].prefix.decision  # the interval is of what was answered until it stopped
    assert (interim["verdict"], interim["decided_at"]) == (decision["verdict"], decision["decided_at"])
    early = {name: frame.predictions for name, frame in runs.items()}
    assert all(len(frame) < 300 for frame in early.values())
    # the full pass goes on from it: what was answered stands as it was
    whole = run(engine, root, "undecided", *flags[:-1])
    for name, full in zip(("base", "lora"), whole, strict=True):
        assert len(full.predictions) == 300 and full.prefix is None
        kept = full.predictions.join(early[name], on="question_id", how="semi").sort("question_id")
        assert kept.equals(early[name].sort("question_id"))


def test_a_model_that_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nonsense", "architectures": ["Nonsense"]}')
    with pytest.raises(EngineError) as caught:
        VllmEngine(EngineSettings(model=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_served_and_merged_adapters_answer_alike_and_unlike_the_base(engine: VllmEngine, root: Path) -> None:
    # The last test of this file: vLLM's process-wide state goes with the merged copy's engine.
    base, served = run(engine, root, "serve", "--adapter", str(root / "lora"), "--adapter-mode", "serve")
    assert served.metrics.to_json()["adapter_shift"]["largest_nats"] > 0.1
    assert not base.predictions["prediction"].equals(served.predictions["prediction"])
    (root / "merge").mkdir()
    shutil.copytree(
        base.path, root / "merge" / base.path.name
    )  # the base is found and reused, its engine never starts
    argv = [
        "--model",
        str(root / "base"),
        "--dataset",
        "sample",
        "--dtype",
        "float32",
        "--output-dir",
        str(root / "merge"),
    ]
    reused, merged = run_evaluation(
        parse_config(EvalConfig, [*argv, "--adapter", str(root / "lora"), "--adapter-mode", "merge"], "eval")
    )
    assert reused.predictions.equals(base.predictions)
    same_answers(served.predictions, merged.predictions, tolerance=1e-2)
    assert merged.metrics.to_json()["adapter_shift"]["largest_nats"] == pytest.approx(
        served.metrics.to_json()["adapter_shift"]["largest_nats"], abs=1e-2
    )
