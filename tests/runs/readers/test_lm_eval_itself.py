"""lm-eval's own output, made by lm-eval itself over the packaged sample, reads back to the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model

from kmmlu_fast.data.dataset import SAMPLE_DIR
from kmmlu_fast.runs.loading import load_run_argument

pytestmark = pytest.mark.engine
VARIANTS = {"kmmlu": "default/_default_kmmlu_yaml", "kmmlu_direct": "direct/_direct_kmmlu_yaml"}
VARIANTS |= {
    "kmmlu_hard": "hard/_hard_kmmlu_yaml",
    "kmmlu_direct_hard": "direct_hard/_direct_hard_kmmlu_yaml",
}
SUBJECTS = {"law": "Law", "math": "math"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where lm-eval wrote its files, and the results that it returned."""
    pytest.importorskip("lm_eval", reason="needs lm-eval (requirements/bench.txt)")
    import yaml
    from datasets import Features, Value
    from lm_eval import evaluator, tasks
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM

    root = tmp_path_factory.mktemp("lm_eval")
    make_tiny_model(root / "tiny")
    columns = ("question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy")
    features = Features({name: Value("int64" if name == "answer" else "string") for name in columns})
    configs: list[Any] = []
    for group, file in VARIANTS.items():
        template = Path(tasks.__file__).parent / "kmmlu" / file
        common = yaml.safe_load(template.read_text(encoding="utf-8"))
        for task, stem in SUBJECTS.items():
            data = SAMPLE_DIR / "data"
            files = {split: str(data / f"{stem}-{split}.csv") for split in ("dev", "test")}
            local = {"data_files": files, "features": features}
            own = {"task": f"{group}_{task}", "dataset_path": "csv", "dataset_kwargs": local}
            configs.append({**common, **own, "dataset_name": None})
    tracker = EvaluationTracker(output_path=str(root / "out"))
    results = evaluator.simple_evaluate(
        model=HFLM(pretrained=str(root / "tiny"), dtype="float32", device="cpu", batch_size=8),
        tasks=configs,
        num_fewshot=0,
        log_samples=True,
        bootstrap_iters=0,
        gen_kwargs="max_gen_toks=4",
        evaluation_tracker=tracker,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for name in results["configs"]:
        tracker.save_results_samples(task_name=name, samples=samples[name])
    return root / "out", results


def test_one_run_per_group_with_the_same_numbers(written: tuple[Path, dict[str, Any]]) -> None:
    folder, results = written
    runs = load_run_argument(str(folder))
    assert sorted(run.name.split()[-1] for run in runs) == sorted(VARIANTS)
    for run in runs:
        group = run.name.split()[-1]
        metric = "exact_match,none" if "direct" in group else "acc,none"
        assert run.exam == ("kmmlu-hard" if "hard" in group else "kmmlu")
        assert run.facts["num_fewshot"] == 0
        assert run.facts["output_type"] == ("generate_until" if "direct" in group else "multiple_choice")
        for subject, correct, total in run.scores.select("subject", "correct", "total").iter_rows():
            task = f"{group}_{subject.lower()}"
            assert correct / total == pytest.approx(results["results"][task][metric])
            assert total == results["n-samples"][task]["effective"]


def test_without_samples_the_scores_are_the_same(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = written
    (file,) = folder.rglob("results_*.json")
    (tmp_path / file.name).write_bytes(file.read_bytes())
    with_samples = {run.name: (run.correct, run.total) for run in load_run_argument(str(file))}
    scores = {run.name: (run.correct, run.total) for run in load_run_argument(str(tmp_path))}
    assert scores == with_samples and len(scores) == len(VARIANTS)
