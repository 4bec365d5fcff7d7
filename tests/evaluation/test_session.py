"""The whole evaluation with a fake engine: reuse, resume, adapters, notes, and one line for
each fault of a user.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast import eval as eval_main
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import AdapterError, ConfigError
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, Adapter, Request, Response
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation import adapter_probe
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import make_eval_plan
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.models.adapters import ADAPTER_CARD
from kmmlu_fast.prompting.tokens import check_prompt_lengths
from kmmlu_fast.runs.store import load_run_directory


class Counting(FakeEngine):
    """Counts what it is asked, and dies after ``fuse`` responses."""

    def __init__(self, fuse: int | None = None) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.fuse = fuse

    def generate(self, requests: Iterable[Request], follow_up: Any = None) -> Iterator[Response]:
        for response in itertools.islice(super().generate(requests, follow_up), self.fuse):
            self.asked.append(response.request.question_id)
            yield response
        if self.fuse is not None:
            raise KeyboardInterrupt


def config(model: Path, root: Path, *flags: str) -> EvalConfig:
    argv = [
        "--model",
        str(model),
        "--dataset",
        "sample",
        "--output-dir",
        str(root),
        "--adapter-mode",
        "serve",
        *flags,
    ]
    return parse_config(EvalConfig, argv, "eval")


def run(made: EvalConfig, engine: FakeEngine | None = None) -> list[Any]:
    return run_evaluation(made, lambda adapters, length, path: engine or FakeEngine())


def test_a_run_has_every_question_once_with_its_numbers(model: Path, tmp_path: Path) -> None:
    [base] = run(config(model, tmp_path))
    frame = base.predictions
    assert len(frame) == frame["question_id"].n_unique() == 180
    assert frame.select(LOGPROB_COLUMNS).null_count().sum_horizontal().item() == 0
    assert base.metrics.to_json()["num_questions"] == 180 and base.metrics.to_json()["unparsed"] == 0
    assert base.metrics.to_json()["micro"]["correct"] == frame["correct"].sum()
    assert base.config["fingerprint_parts"]["prompt_style"] == "lm-eval"
    assert set(frame["prompt_digest"].str.len_chars()) == {16}
    assert json.loads((base.path / "environment.json").read_text())["versions"]["polars"]


def test_an_interrupted_run_continues_without_asking_twice(model: Path, tmp_path: Path) -> None:
    made = config(model, tmp_path / "a")
    first = Counting(fuse=70)
    with pytest.raises(KeyboardInterrupt):
        run(made, first)
    second = Counting()
    [base] = run(made, second)
    answered = set(first.asked)
    again = [q for q in second.asked if not q.startswith("probe/")]
    assert len(answered) >= 69 and not answered & set(again) and len(again) + len(answered) == 180
    [whole] = run(config(model, tmp_path / "b"))
    assert base.predictions.equals(whole.predictions)


def test_a_finished_base_is_reused_for_a_new_adapter(model: Path, lora: Path, tmp_path: Path) -> None:
    run(config(model, tmp_path))
    engine = Counting()
    base, adapted = run(config(model, tmp_path, "--adapter", str(lora)), engine)
    assert (
        len([q for q in engine.asked if not q.startswith("probe/")]) == 180
    )  # the adapter's own, not the base's
    assert base.config["adapter"] is None and adapted.config["adapter"]["name"] == "lora"
    assert adapted.metrics.to_json()["adapter_shift"]["largest_nats"] > 0
    assert base.predictions["prompt_digest"].equals(
        adapted.predictions["prompt_digest"]
    )  # one token list for both
    assert base.path != adapted.path and load_run_directory(adapted.path).name.count("lora") == 1


class Deaf(FakeEngine):
    """Ignores adapters: what an engine would do that lost them."""

    def _answer(self, request: Request) -> Response:
        from dataclasses import replace

        return replace(super()._answer(replace(request, adapter=None)), request=request)


def test_an_adapter_that_changes_nothing_is_an_error(model: Path, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="changes no log-probability"):
        run(config(model, tmp_path, "--adapter", str(lora)), Deaf())


def test_shift_by_hand() -> None:
    adapter = Adapter(name="x", path=Path("x"), adapter_id=1, rank=4, digest="d")
    assert adapter_probe.measure_adapter_shift(adapter, [[-1.0, -2.0]], [[-1.5, -2.0]]) == {
        "probes": 1,
        "largest_nats": 0.5,
        "mean_nats": 0.25,
    }
    with pytest.raises(AdapterError):
        adapter_probe.measure_adapter_shift(adapter, [[-1.0]], [[float("nan")]])


def test_the_adapters_style_is_used_and_another_is_refused(model: Path, lora: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "qa-lora"
    shutil.copytree(lora, folder)
    (folder / ADAPTER_CARD).write_text(json.dumps({"prompt_style": "qa", "template_digest": "0" * 16}))
    plan = make_eval_plan(config(model, tmp_path, "--adapter", str(folder)))
    assert plan.style == "qa" and any("another template" in text for text in plan.notes)
    with pytest.raises(ConfigError, match="trained with qa"):
        make_eval_plan(config(model, tmp_path, "--adapter", str(folder), "--prompt-style", "lm-eval"))


def test_generate_until_counts_unparsed_as_wrong(model: Path, tmp_path: Path) -> None:
    [base] = run(
        config(model, tmp_path, "--output-type", "generate_until", "--subjects", "Law"),
        FakeEngine(text="모르겠다"),
    )
    assert base.metrics.to_json()["unparsed"] == 4 and base.metrics.to_json()["micro"]["accuracy"] == 0
    [read] = run(
        config(model, tmp_path / "b", "--output-type", "generate_until", "--subjects", "Law"),
        FakeEngine(text=" A"),
    )
    assert read.metrics.to_json()["unparsed"] == 0 and read.metrics.to_json()["micro"]["accuracy"] == 0.25


def test_settings_that_decide_answers_change_the_directory(model: Path, tmp_path: Path) -> None:
    names = {
        run(config(model, tmp_path, "--subjects", "Law", *flags))[0].path.name
        for flags in (
            [],
            ["--num-fewshot", "1"],
            ["--prompt-style", "qa"],
            ["--limit", "2"],
            ["--prompt-style", "chat"],
            ["--rotations", "2"],
        )
    }
    assert len(names) == 6


def test_what_does_not_decide_answers_does_not(model: Path, tmp_path: Path) -> None:
    one = run(config(model, tmp_path, "--subjects", "Law"))[0].path
    assert (
        run(
            config(
                model, tmp_path, "--subjects", "Law", "--max-num-seqs", "7", "--gpu-memory-utilization", "0.5"
            )
        )[0].path
        == one
    )


def test_rotations_report_raw_and_debiased(model: Path, tmp_path: Path) -> None:
    [base] = run(config(model, tmp_path, "--rotations", "4", "--subjects", "Law"))
    assert base.metrics.to_json()["accuracy_debiased"] is not None
    assert base.predictions["debiased_logprobs"].list.len().to_list() == [4] * 4


def test_prompts_over_the_context_are_refused_by_name(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/test/\d+: prompt of \d+ tokens .* is over the context of 50"):
        make_eval_plan(config(model, tmp_path, "--max-model-len", "50"))
    few = config(model, tmp_path, "--subjects", "Law", "--num-fewshot", "2")
    lengths = [max(map(len, item.token_ids)) for item in make_eval_plan(few).asked]
    short = tmp_path / "short"
    shutil.copytree(model, short)
    settings = json.loads((short / "config.json").read_text())
    settings["max_position_embeddings"] = max(lengths)  # no token left to generate
    (short / "config.json").write_text(json.dumps(settings))
    told = config(short, tmp_path, "--subjects", "Law", "--num-fewshot", "2")
    with pytest.raises(ConfigError, match=rf"the model's {max(lengths)} positions .*--num-fewshot 1 fits"):
        make_eval_plan(told)
    plan = make_eval_plan(config(model, tmp_path, "--subjects", "Law"))
    check_prompt_lengths(
        {item.question.question_id: max(map(len, item.token_ids)) for item in plan.asked},
        plan.max_model_len,
        1,
    )


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--model", "/no/such"], "no such directory"),
        (["--subjects", "Lawwww"], "unknown subject 'Lawwww'"),
        (["--split", "tset"], "'train', 'dev' or 'test'"),
        (["--prompt-style", "x"], "'lm-eval', 'qa' or 'chat'"),
        (["--dataset", "/no/such"], "no such directory"),
        (["--adapter", "/no/such"], "no such directory"),
        (["--num-fewshot", "3"], "has 2 dev questions"),
        (["--output-dir", "/dev/null/x"], "cannot be written"),
        (
            ["--engine", "server", "--base-url", "http://me:secret@localhost:1/v1"],
            "must not contain a user or password",
        ),
    ],
)
def test_a_users_fault_is_one_line_and_exit_code_2(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], part: str
) -> None:
    argv = ["--model", str(model), "--dataset", "sample", "--output-dir", str(tmp_path), *flags]
    assert eval_main.run_eval_command(argv) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and part in error[0]


def test_no_module_loads_anything_heavy_when_it_is_imported() -> None:
    heavy = (
        "'torch', 'vllm', 'transformers', 'unsloth', 'trl', 'peft', 'datasets', 'scipy', 'altair', 'ray',"
        " 'pandas'"
    )
    code = (
        "import importlib, pkgutil, sys, kmmlu_fast\n"
        "names = [m.name for m in pkgutil.walk_packages(kmmlu_fast.__path__, 'kmmlu_fast.')]\n"
        "for name in names: importlib.import_module(name)\n"
        f"print(len(names) > 60, [m for m in ({heavy}) if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"
