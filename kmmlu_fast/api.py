"""The public Python API: what the command line does, as functions. ``import kmmlu_fast`` offers all of it,
lazily.

In: keyword arguments, which are the fields of the verb's config (``evaluate`` takes what ``python -m
kmmlu_fast.eval --help`` lists). Out: ``Run``, ``Comparison`` and plain frames. Errors are raised as
``KmmluError``, nothing is printed, nothing exits; progress goes to the logger ``kmmlu_fast``, and is a bar in
a notebook. Nothing heavy is imported before the function that needs it is called.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import RunError, TrainError
from kmmlu_fast.core.notes import log_as_warnings

if TYPE_CHECKING:
    import polars as pl

    from kmmlu_fast.reporting.comparison_view import Comparison
    from kmmlu_fast.runs.run import Run
    from kmmlu_fast.sampling.job import DrawnRows
    from kmmlu_fast.training.job import TrainedAdapter


def evaluate(**settings: Any) -> list[Run]:
    """Evaluate a base model and its adapters; one ``Run`` a model state, the base first.

    Keyword arguments are the fields of ``EvalConfig``: ``model`` (hub id, directory or "demo"), ``adapter``
    (a path or a list of ``[NAME=]PATH``), ``dataset`` (hub id, directory or "sample"), ``split``, ``limit``
    (questions a subject), ``num_fewshot``, ``output_type``, ``output_dir`` and so on. A finished run is
    reused, a broken one continued, as on the command line.

    Raises ``ConfigError`` (all faults at once), ``ModelError``, ``AdapterError``, ``DataError``,
    ``EngineError`` or ``RunError``.
    """
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.evaluation.session import run_evaluation as run_session

    return run_session(build_config(EvalConfig, **settings))


def load_run(source: str | Path) -> Run:
    """A run that is on disk: a run directory, an lm-eval output, a score file, or ``FILE.csv:COLUMN`` of a
    predictions table.

    ``Run.predictions`` is a polars frame, a row a question in dataset order (``schema.Prediction`` names its
    columns; log-probabilities are natural logarithms), or None for a score file; ``Run.metrics`` is the run's
    ``metrics.json``, ``Run.path`` its directory. ``Run.prefix`` is set where the run stopped early and holds
    a beginning of a random order.

    Raises ``RunError`` or ``DataError`` where there is none, and where a table holds several runs and none is
    named.
    """
    from kmmlu_fast.runs.loading import load_run_argument

    runs = load_run_argument(str(source), prefix=True)
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs[:5])
        raise RunError(
            f"{source}: holds {len(runs)} runs ({names}, ...); name one, as {source}:{runs[0].name}"
        )
    log_as_warnings(runs[0].notes)
    return runs[0]


def compare_runs(
    first: Run | str | Path,
    second: Run | str | Path,
    *,
    dataset: str | None = None,
    overlap: Sequence[str] = ("auto",),
    intersection: bool = False,
    different_prompts: bool = False,
    margin: float = 1.0,
    population: Literal["like", "these"] = "like",
    seed: int = 42,
) -> Comparison:
    """Is ``second`` better than ``first``, by how much, where, and is it knowledge or letter habit?

    Both are paired question by question; differences are second minus first, 0-1. ``overlap`` names what is
    left out of the clean headline: "auto" (test questions that overlap the dataset's train split), "none", or
    files of question ids; ``intersection`` compares what both runs share; differences within ``margin``
    percentage points are equal for all that matters; ``population`` says whether intervals speak of questions
    "like" these or of "these" very questions.

    Raises ``RunError`` where questions, keys or prompts differ and nothing here allows it.
    """
    from kmmlu_fast.reporting.comparison_settings import make_comparison_settings
    from kmmlu_fast.reporting.comparison_view import build_comparison as compare
    from kmmlu_fast.reporting.config import PairsConfig
    from kmmlu_fast.reporting.inputs import load_questions_frame

    one, other = (run if not isinstance(run, (str, Path)) else load_run(run) for run in (first, second))
    config = build_config(
        PairsConfig,
        runs=[one.source, other.source],
        dataset=dataset,
        overlap=list(overlap),
        intersection=intersection,
        different_prompts=different_prompts,
        margin=margin,
        population=population,
        seed=seed,
    )
    return compare(one, other, make_comparison_settings(config, sizes_from=load_questions_frame(config)))


def profile_errors(
    run: Run | str | Path, *, by: Literal["question", "subject"] = "question", dataset: str | None = None
) -> pl.DataFrame:
    """What goes wrong in a run: by sort of question, or by subject. Counts and shares, no tests.

    ``by="question"`` reads the questions' texts (``dataset``: "sample", a directory or a hub id; by default
    the run's own where it is here) and returns a row a ``feature`` (length, negation, number, formula,
    figure, human_band) and ``value``: ``total``, ``correct``, ``errors``, ``accuracy`` (0-1), ``stderr``,
    ``ci_low`` and ``ci_high`` (Wilson, 95 %).

    ``by="subject"`` needs no texts and returns a row a ``subject``: ``total``, ``errors``, of which
    ``unparsed``, ``forced``, ``confident`` (confidence of 0.8 or more) and ``close`` (the key first or second
    by log-probability), null where not known; ``letter``, the wrong letter given most often, and
    ``letter_errors``, how often.

    Raises ``RunError`` for a score file, ``DataError`` where the texts are wanted and no dataset is known.
    """
    from kmmlu_fast.analysis.error_profile import error_kinds, error_profile
    from kmmlu_fast.core.errors import DataError
    from kmmlu_fast.reporting.config import PairsConfig
    from kmmlu_fast.reporting.inputs import load_questions_frame

    found = run if not isinstance(run, (str, Path)) else load_run(run)
    if by == "subject":
        return error_kinds(found.frame, ("subject",))
    questions = load_questions_frame(build_config(PairsConfig, runs=[found.source], dataset=dataset))
    if questions is None:
        raise DataError(
            f"{found.name}: the texts of its questions are not known; give dataset='sample', a directory or a"
            " hub id, or by='subject'"
        )
    return error_profile(found.frame, questions)


def find_confident_errors(run: Run | str | Path, *, limit: int = 20) -> pl.DataFrame:
    """The wrong answers a run was surest of: the first to look at, for the model and for the key.

    Returns a row a question, surest first: ``question_id``, ``subject``, ``answer``, ``prediction``,
    ``margin`` (nats, of the best letter over the second), ``confidence`` (0-1), ``logprob_A`` to
    ``logprob_D`` (natural); empty where the run has letters only. At most ``limit`` rows.

    Raises ``RunError`` for a score file.
    """
    from kmmlu_fast.analysis.error_profile import confident_errors

    found = run if not isinstance(run, (str, Path)) else load_run(run)
    return confident_errors(found.frame, limit)


def write_report(
    runs: Run | Sequence[Run | str | Path],
    path: str | Path,
    *,
    lang: Literal["en", "ko"] = "en",
    dataset: str | None = None,
    overlap: Sequence[str] = ("auto",),
    groups: Mapping[str, Sequence[Run | str | Path]] | None = None,
    figures: str | Path | None = None,
    figure_width: float | None = None,
    no_texts: bool = False,
    seed: int = 42,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML file about ``runs``, the first being the base; returns its path.

    With a dataset ("sample", a directory or a hub id; by default the runs' own where it is here) the page
    holds the questions' texts; ``no_texts`` leaves them out, so that it may be shared. Runs of several exams
    are compared in a table above; the rest of the page is about the first run's exam. ``groups`` are recipes,
    a name with runs of several seeds, whose effect against the base is stated over their seeds. ``figures``
    names a directory for the charts as SVG, PNG and PDF, ``figure_width`` inches wide. What exists is
    replaced with ``overwrite`` only.

    Raises ``RunError`` or ``DataError`` for what cannot be read, ``ConfigError`` for a file that is in the
    way.
    """
    from kmmlu_fast.core.files import claim_outputs
    from kmmlu_fast.reporting.comparison_settings import make_comparison_settings
    from kmmlu_fast.reporting.config import PairsConfig
    from kmmlu_fast.reporting.html import page
    from kmmlu_fast.reporting.inputs import config_input_files, load_questions_frame
    from kmmlu_fast.reporting.report_data import collect_report_data
    from kmmlu_fast.runs.run import Run as RunType

    def loaded(several: Run | Sequence[Run | str | Path]) -> list[Run]:
        given = [several] if isinstance(several, RunType) else list(several)
        return [run if isinstance(run, RunType) else load_run(run) for run in given]

    found = loaded(runs)
    recipes = {name: loaded(members) for name, members in (groups or {}).items()}
    config = build_config(
        PairsConfig,
        runs=[run.source for run in found],
        dataset=dataset,
        overlap=list(overlap),
        seed=seed,
        lang=lang,
    )
    read = [*config_input_files(config), *(run.path for some in recipes.values() for run in some if run.path)]
    claim_outputs([Path(path)], read, overwrite=overwrite, flag="path")
    questions = load_questions_frame(config)
    page.write_report_page(
        collect_report_data(found, make_comparison_settings(config, questions), questions, groups=recipes),
        Path(path),
        lang,
        figure_folder=None if figures is None else Path(figures),
        figure_width=figure_width,
        with_texts=not no_texts,
    )
    return Path(path)


def draw_rows(**settings: Any) -> DrawnRows:
    """Draw training rows from weak subjects and write them as Alpaca JSONL, with plan, dropped rows and data
    card beside them.

    Keyword arguments are the fields of ``python -m kmmlu_fast.sample``; ``source`` stands for ``--from`` (a
    run, a run directory or a score file, or a list of them): ``size`` rows, ``out``, ``dataset``,
    ``strategy``, ``seed``. Rows that overlap test or dev are never drawn.

    Raises ``ConfigError`` where ``out`` exists, ``RunError`` or ``DataError`` for what cannot be read.
    """
    from kmmlu_fast.core.errors import ConfigError
    from kmmlu_fast.sampling.config import SampleConfig
    from kmmlu_fast.sampling.job import draw_training_rows as draw

    if "source" in settings:
        if "from" in settings:
            raise ConfigError("source and from are one setting: give one of them")
        given = settings.pop("source")
        several = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
        settings["from"] = [each.source if hasattr(each, "source") else str(each) for each in several]
    return draw(build_config(SampleConfig, **settings))


def train_adapter(**settings: Any) -> TrainedAdapter:
    """Train a LoRA adapter with Unsloth; returns its directory and card (``.path``, ``.metrics``,
    ``.warnings``).

    Keyword arguments are the fields of ``TrainConfig``: ``data`` (JSONL), ``output_dir``, ``model``,
    ``num_train_epochs``, ``learning_rate``, ``r`` and so on. It runs in a process of its own: importing
    Unsloth patches transformers, which evaluation must not see, and its memory is free again afterwards. Its
    lines of progress go to the logger ``kmmlu_fast``.

    Raises ``ConfigError`` before anything starts, ``TrainError`` with the child's own words where it stops.
    """
    import yaml

    from kmmlu_fast.training.config import TrainConfig
    from kmmlu_fast.training.job import load_adapter_card

    config = build_config(TrainConfig, **settings)
    given = {
        name: value
        for name, value in config.model_dump(mode="json").items()
        if name in config.model_fields_set
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "train.yaml")
        file.write_text(yaml.safe_dump(given, allow_unicode=True), encoding="utf-8")
        command = [sys.executable, "-m", "kmmlu_fast.train", "--config", str(file)]
        last = ""
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
            assert child.stderr is not None
            try:
                for line in child.stderr:
                    last = line.strip() or last
                    log_note(line.rstrip())
            except BaseException:
                child.terminate()
                raise
    if child.returncode:
        raise TrainError(last.removeprefix("error: ") or f"training ended with exit code {child.returncode}")
    return load_adapter_card(config.output_dir)


def find_overlap(
    train: str | Path | None = None,
    *,
    dataset: str = "HAERAE-HUB/KMMLU",
    split: Literal["test", "dev"] = "test",
    revision: str | None = None,
) -> pl.DataFrame:
    """Rows of a training file that overlap a split of a dataset; without a file, the dataset's own train
    split.

    Returns a frame of pairs: ``train_id``, ``test_id``, ``kind`` (source, exact, normalised, reordered,
    question, near, contained) and ``similarity`` (0-1); empty means clean.

    Raises ``DataError`` for what cannot be read.
    """
    from kmmlu_fast.contamination import overlap

    if train is None:
        return overlap.train_overlap(dataset, revision).log_and_unwrap()
    return overlap.find_file_overlap(Path(train), dataset, split, revision)
