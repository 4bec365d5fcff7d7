"""``.eval_results/*.yaml``: a model's numbers on the leaderboard of a benchmark that the hub has registered.

In: a run. Out: the file, only if its data set carries the hub's benchmark tag and an ``eval.yaml`` whose
tasks the run answers whole; and one sentence that says what was done and why. Knows nothing of cards or
commits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.reading import read_yaml
from kmmlu_fast.runs.run import Run

FOLDER = ".eval_results"
_PARTS = ("limit", "questions", "max_questions", "subjects")  # settings of a run over some of the questions
_TAG = "benchmark:official"


def make_eval_results(run: Run, dataset: str) -> tuple[dict[str, bytes], str]:
    """Name -> content of the file, or {}; and the sentence."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    tasks, problem = _find_tasks(dataset)
    if problem:
        return {}, f"{problem}, so {FOLDER}/*.yaml is not written; the numbers are in the card's model-index"
    settings = run.config.get("config") or {}
    if settings.get("split", "test") != "test" or any(settings.get(name) for name in _PARTS):
        return {}, f"{run.name}: covers a part of {dataset}'s test split, so {FOLDER}/*.yaml is not written"
    values = _task_values(run, tasks)
    if not values:
        return {}, f"{dataset}: its eval.yaml has no task that this run answers; {FOLDER} is not written"
    notes = f"{run.facts.get('num_fewshot')}-shot, {run.facts.get('prompt_style')} prompts, kmmlu_fast"
    entries = [
        EvalResultEntry(dataset_id=dataset, task_id=task, value=round(100 * value, 2), notes=notes)
        for task, value in values.items()
    ]
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), allow_unicode=True, sort_keys=False)
    name = f"{FOLDER}/{run.exam}.yaml"
    return {name: text.encode()}, f"{name}: {len(entries)} results of {run.state}, in percent, for {dataset}"


def _find_tasks(dataset: str) -> tuple[list[dict[str, Any]], str]:
    """The tasks of a registered benchmark's ``eval.yaml``; or none, and why."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        if _TAG not in (api.dataset_info(dataset).tags or []):
            return [], f"{dataset} is not a registered benchmark of the hub"
        path = api.hf_hub_download(dataset, "eval.yaml", repo_type="dataset")
        document = read_yaml(Path(path), f"{dataset} eval.yaml")
    except KmmluError as error:
        return [], str(error)
    except Exception:  # the hub client raises a dozen kinds; all mean that nobody can tell
        return [], f"the hub could not be asked whether {dataset} is a registered benchmark"
    tasks = document.get("tasks") if isinstance(document, dict) else None
    named = [task for task in tasks or [] if isinstance(task, dict) and task.get("id")]
    return named, "" if named else f"{dataset}: its eval.yaml names no task"


def _task_values(run: Run, tasks: list[dict[str, Any]]) -> dict[str, float]:
    """Accuracy by task: the whole run's for an only task, else each subject's for the task of its config."""
    if len(tasks) == 1:
        return {str(tasks[0]["id"]): run.micro}
    shares = {subject: right / total for subject, right, total in _subject_counts(run) if total}
    by_config = {str(task.get("config")): str(task["id"]) for task in tasks}
    return {by_config[subject]: share for subject, share in shares.items() if subject in by_config}


def _subject_counts(run: Run) -> list[tuple[str, int, int]]:
    return list(run.scores.select("subject", "correct", "total").iter_rows())
