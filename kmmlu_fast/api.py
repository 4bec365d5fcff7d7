"""The public Python API: the verbs of the command line as functions, offered lazily by ``import kmmlu_fast``.

In: keyword arguments, the fields of the verb's config (``evaluate`` takes what ``python -m kmmlu_fast.eval
--help`` lists). Out: ``Run``, ``Comparison`` and plain frames. Errors are raised as ``KmmluError``; nothing
is printed and nothing exits. Progress goes to the logger ``kmmlu_fast``, or to a bar in a notebook. Heavy
packages are imported only by the function that needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import ConfigError, EngineError, TrainError
from kmmlu_fast.core.notes import log_as_warnings

if TYPE_CHECKING:
    import polars as pl

    from kmmlu_fast.api_settings import (
        CheckSettings,
        EvalSettings,
        ExportSettings,
        SampleSettings,
        TrainSettings,
    )
    from kmmlu_fast.improvement.search import SearchResult
    from kmmlu_fast.reporting.comparison_view import Comparison
    from kmmlu_fast.runs.run import Run
    from kmmlu_fast.sampling.job import DrawnRows
    from kmmlu_fast.shipping.gate import GateReport
    from kmmlu_fast.training.job import TrainedAdapter


def evaluate(**settings: Unpack[EvalSettings]) -> list[Run]:
    """Evaluate a base model and its adapters. Returns one ``Run`` per model state, the base first.

    Keyword arguments are the fields of ``EvalConfig``: ``model`` (hub id, directory or "demo"), ``adapter``
    (a path or a list of ``[NAME=]PATH``), ``dataset`` (hub id, directory or "sample"), ``split``, ``limit``
    (questions per subject), ``num_fewshot``, ``output_type``, ``output_dir`` and so on. As on the command
    line, a finished run is reused and an interrupted one continued.

    Raises ``ConfigError`` (all faults at once), ``ModelError``, ``AdapterError``, ``DataError``,
    ``EngineError`` or ``RunError``.
    """
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.evaluation.session import run_evaluation

    config = build_config(EvalConfig, **settings)
    if config.plan:
        raise ConfigError("plan=True: evaluate() asks the model; plan_evaluation() shows the plan")
    return run_evaluation(config)


def plan_evaluation(**settings: Unpack[EvalSettings]) -> str:
    """What an evaluation would ask, what it needs and how long it would take. Computed, not measured.

    Keyword arguments as in ``evaluate``; ``gpu_memory`` (GiB) plans for a GPU that is not here.

    Raises ``EngineError`` if the model does not fit, and what ``evaluate`` raises before it starts an engine.
    """
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.evaluation.preview import preview_evaluation

    values: dict[str, Any] = {**settings, "plan": True}
    preview = preview_evaluation(build_config(EvalConfig, **values))
    if preview.problem:
        raise EngineError(preview.problem)
    return "\n".join(preview.lines)


def load_run(source: str | Path) -> Run:
    """Load a run from disk: a run directory, an lm-eval output, an inspect log, a score file,
    ``FILE.csv:COLUMN`` of a predictions table, or ``published:NAME``, a public run whose answers ship.

    ``Run.predictions`` is a polars frame with one row per question in dataset order (``schema.Prediction``
    names its columns; log-probabilities are natural logarithms), or None for a score file. ``Run.metrics`` is
    the run's ``metrics.json`` as a typed record (``run.metrics.micro.accuracy``; ``.to_json()`` gives the
    dict), ``Run.path`` its directory. ``Run.prefix`` is set if the run stopped early; it then holds the
    beginning of a random order.

    Raises ``RunError`` or ``DataError`` if there is no run, or if a table holds several and none is named.
    """
    from kmmlu_fast.runs.loading import load_run_argument, only_run

    run = only_run(str(source), load_run_argument(str(source), prefix=True))
    log_as_warnings(run.notes)
    return run


def _as_run(run: Run | str | Path) -> Run:
    return load_run(run) if isinstance(run, (str, Path)) else run


def _as_named_runs(runs: Sequence[Run | str | Path]) -> list[Run]:
    """The runs with the short, distinct names that the command line gives them."""
    from kmmlu_fast.runs.loading import short_run_names

    loaded = [_as_run(run) for run in runs]
    return [replace(run, name=name) for run, name in zip(loaded, short_run_names(loaded), strict=True)]


def score_subjects(run: Run | str | Path) -> pl.DataFrame:
    """A run's accuracy by subject, weakest first.

    One row per subject: ``subject``, ``supercategory``, ``correct``, ``total``, ``accuracy`` (0-1), ``low``
    and ``high`` (Wilson, 95 %).
    """
    from kmmlu_fast.analysis.accuracy import with_accuracy_interval

    return with_accuracy_interval(_as_run(run).scores).sort("accuracy", "subject")


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
) -> Comparison:
    """Is ``second`` better than ``first``, by how much, where, and is it knowledge or letter habit?

    The runs are paired question by question; differences are second minus first, 0-1. ``overlap`` names what
    the clean headline leaves out: "auto" (test questions that overlap the dataset's train split), "none", or
    files of question ids. ``intersection`` compares the questions that both runs share. Differences within
    ``margin`` percentage points count as equal. ``population``: intervals refer to questions "like" these or
    to exactly "these".

    Raises ``RunError`` if questions, keys or prompts differ and no argument allows it.
    """
    from kmmlu_fast.reporting.comparison_settings import make_comparison_settings
    from kmmlu_fast.reporting.comparison_view import build_comparison
    from kmmlu_fast.reporting.config import PairsConfig
    from kmmlu_fast.reporting.inputs import load_questions_frame

    one, other = _as_named_runs([first, second])
    config = build_config(
        PairsConfig,
        runs=[one.source, other.source],
        dataset=dataset,
        overlap=list(overlap),
        intersection=intersection,
        different_prompts=different_prompts,
        margin=margin,
        population=population,
    )
    return build_comparison(
        one, other, make_comparison_settings(config, sizes_from=load_questions_frame(config))
    )


def profile_errors(
    run: Run | str | Path, *, by: Literal["question", "subject"] = "question", dataset: str | None = None
) -> pl.DataFrame:
    """What goes wrong in a run, by kind of question or by subject. Counts and shares, no tests.

    ``by="question"`` reads the questions' texts (``dataset``: "sample", a directory or a hub id; by default
    the run's own if it is available locally). It returns one row per ``feature`` (length, negation, number,
    formula, figure, human_band) and ``value``: ``total``, ``correct``, ``errors``, ``accuracy`` (0-1),
    ``stderr``, ``ci_low`` and ``ci_high`` (Wilson, 95 %).

    ``by="subject"`` needs no texts. It returns one row per ``subject``: ``total``, ``errors``, of which
    ``unparsed``, ``forced``, ``confident`` (confidence of 0.8 or more) and ``close`` (the key first or second
    by log-probability), null if not known; ``letter``, the most frequent wrong letter, and ``letter_errors``,
    its count.

    Raises ``RunError`` for a score file, ``DataError`` if the texts are needed and no dataset is known.
    """
    from kmmlu_fast.analysis.error_profile import error_kinds, error_profile
    from kmmlu_fast.core.errors import DataError
    from kmmlu_fast.reporting.config import PairsConfig
    from kmmlu_fast.reporting.inputs import load_questions_frame

    run = _as_run(run)
    if by == "subject":
        return error_kinds(run.frame, ("subject",))
    questions = load_questions_frame(build_config(PairsConfig, runs=[run.source], dataset=dataset))
    if questions is None:
        raise DataError(
            f"{run.name}: the texts of its questions are not known; give dataset='sample', a directory or a"
            " hub id, or by='subject'"
        )
    return error_profile(run.frame, questions)


def find_confident_errors(run: Run | str | Path, *, limit: int = 20) -> pl.DataFrame:
    """The wrong answers a run was most confident of: where to look first for faults of the model or the key.

    Returns at most ``limit`` rows, one per question, most confident first: ``question_id``, ``subject``,
    ``answer``, ``prediction``, ``margin`` (nats, of the best letter over the second), ``confidence`` (0-1),
    ``logprob_A`` to ``logprob_D`` (natural). Empty if the run has letters only.

    Raises ``RunError`` for a score file.
    """
    from kmmlu_fast.analysis.error_profile import confident_errors

    return confident_errors(_as_run(run).frame, limit)


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
    figure_title: bool = True,
    no_texts: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML file about ``runs``, the first being the base. Returns its path.

    With a dataset ("sample", a directory or a hub id; by default the runs' own if it is available locally)
    the page contains the questions' texts; ``no_texts`` leaves them out so that it can be shared. Runs of
    several exams are compared in a table at the top; the rest of the page is about the first run's exam.
    ``groups`` maps the name of a recipe to its runs with several seeds; their effect against the base is
    estimated over the seeds. ``figures`` names a directory for the charts as SVG, PNG and PDF,
    ``figure_width`` inches wide, with their titles inside unless ``figure_title`` is False. Existing files
    are replaced only with ``overwrite``.

    Raises ``RunError`` or ``DataError`` for unreadable input, ``ConfigError`` if a file exists.
    """
    from kmmlu_fast.core.files import claim_outputs
    from kmmlu_fast.reporting.charts.paper_figures import write_figures
    from kmmlu_fast.reporting.comparison_settings import make_comparison_settings
    from kmmlu_fast.reporting.config import PairsConfig
    from kmmlu_fast.reporting.html import page
    from kmmlu_fast.reporting.inputs import config_input_files, load_questions_frame
    from kmmlu_fast.reporting.report_data import collect_report_data
    from kmmlu_fast.runs.run import Run as RunType

    loaded = _as_named_runs([runs] if isinstance(runs, RunType) else runs)
    recipes = {name: [_as_run(run) for run in members] for name, members in (groups or {}).items()}
    config = build_config(
        PairsConfig,
        runs=[run.source for run in loaded],
        dataset=dataset,
        overlap=list(overlap),
        lang=lang,
    )
    inputs = config_input_files(config)
    inputs += [run.path for members in recipes.values() for run in members if run.path]
    claim_outputs([Path(path)], inputs, overwrite=overwrite, flag="path")
    questions = load_questions_frame(config)
    data = collect_report_data(loaded, make_comparison_settings(config, questions), questions, groups=recipes)
    page.write_report_page(data, Path(path), lang, with_texts=not no_texts)
    if figures is not None:
        write_figures(data, Path(figures), lang, width_in=figure_width, with_titles=figure_title)
    return Path(path)


def export_runs(
    runs: Run | Sequence[Run | str | Path],
    folder: str | Path,
    *,
    formats: Sequence[str] = ("csv",),
    lang: Literal["en", "ko"] = "en",
    dataset: str | None = None,
    overlap: Sequence[str] = ("auto",),
    no_texts: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write all numbers about ``runs``, the first being the base, into ``folder``. Returns the files.

    ``formats``: csv, csv.gz, parquet, json, xlsx, lm-eval, inspect. The other arguments are those of
    ``write_report``.

    Raises ``RunError`` or ``DataError`` for unreadable input, ``ConfigError`` for an unknown format or a file
    that exists.
    """
    from kmmlu_fast.core.files import claim_outputs
    from kmmlu_fast.reporting.comparison_settings import make_comparison_settings
    from kmmlu_fast.reporting.config import ReportConfig
    from kmmlu_fast.reporting.files.export_formats import find_export_format
    from kmmlu_fast.reporting.files.exports import write_exports
    from kmmlu_fast.reporting.inputs import config_input_files, load_questions_frame
    from kmmlu_fast.reporting.report_data import collect_report_data
    from kmmlu_fast.reporting.wording.language import get_translator
    from kmmlu_fast.runs.run import Run as RunType

    loaded = _as_named_runs([runs] if isinstance(runs, RunType) else runs)
    config = build_config(
        ReportConfig,
        runs=[run.source for run in loaded],
        export=list(formats),
        dataset=dataset,
        overlap=list(overlap),
    )
    outputs = [path for name in config.export for path in find_export_format(name).paths(Path(folder))]
    claim_outputs(outputs, config_input_files(config), overwrite=overwrite, flag="folder")
    questions = load_questions_frame(config)
    data = collect_report_data(loaded, make_comparison_settings(config, questions), questions)
    return write_exports(config.export, data, get_translator(lang), Path(folder), with_texts=not no_texts)


def draw_rows(**settings: Unpack[SampleSettings]) -> DrawnRows:
    """Draw training rows from weak subjects and write them as Alpaca JSONL, with the plan, the dropped rows
    and a data card next to them.

    Keyword arguments are the flags of ``python -m kmmlu_fast.sample`` (``size`` in rows, ``out``,
    ``dataset``, ``strategy``, ``seed`` and so on); ``source`` stands for ``--from`` (a run, a run directory
    or a score file, or a list of them). Rows that overlap test or dev are never drawn.

    Raises ``ConfigError`` if ``out`` exists, ``RunError`` or ``DataError`` for unreadable input.
    """
    from kmmlu_fast.sampling.config import SampleConfig
    from kmmlu_fast.sampling.job import draw_training_rows

    values: dict[str, Any] = dict(settings)
    if "source" in values:
        if "from" in values:
            raise ConfigError("source and from are one setting: give one of them")
        sources = values.pop("source")
        if not isinstance(sources, (list, tuple)):
            sources = [] if sources is None else [sources]
        values["from"] = [str(getattr(source, "source", source)) for source in sources]
    return draw_training_rows(build_config(SampleConfig, **values))


def plan_training(**settings: Unpack[TrainSettings]) -> str:
    """What would fit: the memory plan of a training, without weights or rows. Computed, not measured.

    Keyword arguments as in ``train_adapter``; ``gpu_memory`` (GiB) plans for a GPU that is not here.

    Raises ``TrainError`` if nothing fits, ``ModelError`` if the model's config.json is not available.
    """
    from kmmlu_fast.training.config import TrainConfig
    from kmmlu_fast.training.preview import preview_training

    values: dict[str, Any] = {**settings, "plan": True}
    return "\n".join(preview_training(build_config(TrainConfig, **values)))


def train_adapter(**settings: Unpack[TrainSettings]) -> TrainedAdapter:
    """Train a LoRA adapter with Unsloth. Returns its directory and card (``.path``, ``.metrics``,
    ``.warnings``).

    Keyword arguments are the fields of ``TrainConfig``: ``data`` (JSONL), ``output_dir``, ``model``,
    ``num_train_epochs``, ``learning_rate``, ``r`` and so on. Training runs in a child process, because
    importing Unsloth patches transformers, which must not affect evaluation, and because its memory is freed
    when it exits. Its progress lines go to the logger ``kmmlu_fast``.

    Raises ``ConfigError`` before anything starts, ``TrainError`` with the child's last line if it fails.
    """
    from kmmlu_fast.command.child import run_verb
    from kmmlu_fast.training.config import TrainConfig
    from kmmlu_fast.training.job import load_adapter_card

    config = build_config(TrainConfig, **settings)
    if config.stop_after is not None:
        raise ConfigError("stop_after pauses a training, which has no adapter yet; leave it out")
    run_verb("train", config, TrainError)
    return load_adapter_card(config.output_dir)


def find_recipe(**settings: Any) -> SearchResult:
    """Search for the recipe that improves a model most, or continue a search. Returns the winner, its
    adapters and what test said (``.winner``, ``.adapters``, ``.confirmation``).

    Keyword arguments are the flags of ``python -m kmmlu_fast.improve``: ``recipes`` (a YAML file), ``model``,
    ``dataset``, ``output_dir``, ``rungs``, ``minutes`` and so on. Recipes are chosen on train questions; test
    is asked once, about the winner.

    Raises ``ConfigError`` before anything starts, ``TrainError`` or ``EngineError`` if a piece of work fails;
    the same call continues.
    """
    from kmmlu_fast.improvement.config import ImproveConfig
    from kmmlu_fast.improvement.search import run_search

    return run_search(build_config(ImproveConfig, **settings))


def find_overlap(
    train: str | Path | None = None,
    *,
    dataset: str = "HAERAE-HUB/KMMLU",
    split: Literal["test", "dev"] = "test",
    revision: str | None = None,
) -> pl.DataFrame:
    """Rows of a training file (default: the dataset's own train split) that overlap a split of a dataset.

    Returns a frame of pairs: ``train_id``, ``test_id``, ``kind`` (source, exact, normalised, reordered,
    question, near, contained) and ``similarity`` (0-1). An empty frame means clean.

    Raises ``DataError`` for unreadable input.
    """
    from kmmlu_fast.contamination import overlap

    if train is None:
        return overlap.train_overlap(dataset, revision).log_and_unwrap()
    return overlap.find_file_overlap(Path(train), dataset, split, revision)


def export_model(adapter: str | Path, out: str | Path, **settings: Unpack[ExportSettings]) -> Path:
    """Export an adapter into the new directory ``out``. Returns its path.

    Keyword arguments are the flags of ``python -m kmmlu_fast.export``: ``to`` ("merged", "gguf",
    "gguf-lora"), ``quantize`` (such as ``["q8_0", "q4_k_m"]``), ``model``, ``dtype`` and so on.

    Raises ``ConfigError`` if ``out`` exists or the disk is too small, ``AdapterError`` or ``EngineError``.
    """
    from kmmlu_fast.shipping.config import ExportConfig
    from kmmlu_fast.shipping.export import export_adapter

    return export_adapter(build_config(ExportConfig, adapter=[str(adapter)], out=Path(out), **settings)).path


def check_artefacts(
    adapter: str | Path, *artefacts: str | Path, **settings: Unpack[CheckSettings]
) -> GateReport:
    """Compare artefacts (model directories, GGUF files, a server's models) with base + adapter.

    Keyword arguments are the flags of ``python -m kmmlu_fast.check``: ``questions``, ``model``, ``dataset``
    and so on. ``GateReport.checked`` has one entry per artefact, with ``diagnosis.sentence``,
    ``diagnosis.verdict`` (same, equal, undecided, differs) and ``diagnosis.causes``; ``GateReport.is_safe``
    is what the command's exit code says.

    Raises ``ConfigError``, ``AdapterError`` or ``ModelError`` before anything is asked.
    """
    from kmmlu_fast.shipping.config import CheckConfig
    from kmmlu_fast.shipping.gate import check_release

    specs = [str(path) for path in (adapter, *artefacts)]
    return check_release(build_config(CheckConfig, artefacts=specs, **settings))
