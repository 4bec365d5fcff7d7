"""What ``compare`` and ``report`` are given: their flags, the runs, the questions' texts, the overlap list.

In: flags. Out: loaded runs with the base first, the dataset's frame, and the settings of a comparison. Knows nothing of how it is shown.
"""

from __future__ import annotations

import functools
import json
import warnings
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import BeforeValidator, Field, field_validator

from kmmlu_fast.analysis.comparison import Settings
from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.flags import Config
from kmmlu_fast.runs.loading import load_all
from kmmlu_fast.runs.naming import named, without_other_bases
from kmmlu_fast.runs.run import Run

FORMATS = ("csv", "json", "xlsx", "lm-eval")


class PairsConfig(Config):
    """What compare and report have in common: which runs, and how pairs of them are compared."""

    positional: ClassVar[str | None] = "runs"
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "runs": ("base", "latest", "runs_dir"),
        "comparison": ("overlap", "intersection", "different_prompts", "margin", "population", "seed"),
        "questions": ("dataset", "split"),
        "output": (
            "output", "lang", "format", "by_subject", "json_file", "no_texts", "export", "figures", "figure_width", "plan", "show",
        ),
    }  # fmt: skip

    runs: list[str] = Field(
        [],
        description="run directories, lm-eval outputs, score files, or predictions tables FILE.csv[:COLUMN]; the first is the base. "
        "Of runs in --runs-dir also base, an adapter's name, or the last characters of a fingerprint",
    )
    latest: bool = Field(False, description="the run finished last, beside the base run that was asked the same")
    runs_dir: Path = Field(Path("runs"), description="where --latest and short names are looked up")
    base: str | None = Field(None, description="name of the run that the others are compared with; default: the first")
    dataset: str | None = Field(
        None,
        description="dataset (hub id, directory, 'sample' or 'none') for texts, overlap and keys; default: the runs' own, if it is here",
    )
    split: Literal["train", "dev", "test"] = Field("test", description="split that a predictions table or lm-eval output is over")
    overlap: list[str] = Field(
        ["auto"], description="left out of the clean headline: files of question ids, auto (what overlaps the dataset's train split), none"
    )
    intersection: bool = Field(False, description="compare on the questions that both runs have, under the same key")
    different_prompts: bool = Field(False, description="compare although the prompts differ")
    seed: int = Field(42, description="seed of the bootstrap")
    lang: Literal["en", "ko"] = Field("en", description="language of the output")


class CompareConfig(PairsConfig):
    """python -m kmmlu_fast.compare: runs over the same questions, question by question."""

    first: ClassVar[tuple[str, ...]] = ("base", "latest", "by_subject", "format", "lang")
    examples: ClassVar[tuple[str, ...]] = ("base lora", "--latest", "runs/*-base-* runs/*-lora-* --format md")

    format: Literal["text", "md", "csv", "json"] = Field("text", description="of what is printed; csv: a row a comparison and subject")
    by_subject: bool = Field(False, description="list every subject, not only those that changed most")
    json_file: Path | None = Field(None, description="write all numbers to this JSON file as well")


def read_overlap(path: Path) -> frozenset[str]:
    """Question ids, one a line, as JSON (a list, or ``leakage``'s file), or a CSV or Parquet column ``test_id`` or ``question_id``."""
    try:
        if path.suffix in (".csv", ".parquet"):
            frame = pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
            column = next((name for name in ("test_id", "question_id") if name in frame.columns), frame.columns[0])
            ids = frame[column].cast(pl.String).to_list()
        else:
            text = path.read_text(encoding="utf-8")
            document = json.loads(text) if text.lstrip()[:1] in ("[", "{") else text.split()
            ids = document["test_ids"] if isinstance(document, dict) else document
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"--overlap {path}: cannot be read ({str(error).splitlines()[0]}); give a text file of question ids, one a line"
        ) from error
    if bad := [value for value in ids if str(value).count("/") != 2]:
        raise DataError(f"--overlap {path}: {bad[0]!r} is no question id such as Accounting/test/17")
    return frozenset(map(str, ids))


def sources(config: PairsConfig) -> list[str]:
    """The run arguments as paths: short names and --latest looked up, once."""
    return list(_sources(tuple(config.runs), config.runs_dir, config.latest))


@functools.cache
def _sources(runs: tuple[str, ...], folder: Path, latest: bool) -> tuple[str, ...]:
    return tuple(named(list(runs), folder, latest))


def dataset_of(config: PairsConfig) -> str | None:
    """--dataset; without it, what the run directories were over, if that is here: the sample or a local directory."""
    if config.dataset is not None:
        return None if config.dataset == "none" else config.dataset
    named = set()
    for argument in sources(config):
        path = Path(argument) / "config.json"
        if path.is_file():
            named.add(str((read_json(path).get("config") or {}).get("dataset")))
    only = named.pop() if len(named) == 1 else None
    return only if only is not None and (only == "sample" or Path(only).is_dir()) else None


def load_questions_frame(config: PairsConfig) -> pl.DataFrame | None:
    """The dataset's questions, where a dataset is known."""
    from kmmlu_fast.data.dataset import load_frame

    dataset = dataset_of(config)
    return None if dataset is None else load_frame(dataset, config.split)


def load_runs(config: PairsConfig, at_least: int) -> tuple[list[Run], pl.DataFrame | None]:
    """The runs of the arguments, the base first; and the dataset's questions where a dataset is known."""
    questions = load_questions_frame(config)
    runs = without_other_bases(load_all(sources(config), questions, config.split), config.base)
    if len(runs) < at_least:
        raise ConfigError(f"{len(runs)} run given, {at_least} needed: name a base and at least one other, such as runs/base runs/lora")
    if config.base is not None:
        chosen = [run for run in runs if config.base in (run.name, run.source, run.config.get("name"))]
        if not chosen:
            raise ConfigError(f"--base {config.base!r} is none of the runs {', '.join(run.name for run in runs)}")
        runs = [chosen[0], *[run for run in runs if run is not chosen[0]]]
    return runs, questions


def settings_of(config: PairsConfig) -> Settings:
    """How pairs are compared; the overlap list is what --overlap names, together."""
    overlap = frozenset(name for entry in config.overlap if entry not in ("auto", "none") for name in read_overlap(Path(entry)))
    if "auto" in config.overlap and config.split == "test" and (dataset := dataset_of(config)) is not None:
        from kmmlu_fast.data.overlap import overlap_ids

        try:
            with warnings.catch_warnings(action="ignore"):  # absent train files were reported where the dataset was read
                overlap |= overlap_ids(dataset, config.split)
        except DataError:
            pass  # a dataset without a train split overlaps nothing
    return Settings(seed=config.seed, intersection=config.intersection, different_prompts=config.different_prompts, overlap=overlap)


def _inches(value: Any) -> Any:
    """A length in inches; what is none is left to pydantic's own message."""
    text = str(value).strip().lower()
    for unit, inches in (("in", 1.0), ("mm", 1 / 25.4), ("cm", 1 / 2.54), ("pt", 1 / 72)):
        number = text.removesuffix(unit).strip()
        if number != text and number.replace(".", "", 1).isdigit():
            return float(number) * inches
    return value


class ReportConfig(PairsConfig):
    """python -m kmmlu_fast.report: runs as one HTML file, and as CSV, JSON, XLSX or lm-eval files."""

    first: ClassVar[tuple[str, ...]] = ("output", "dataset", "no_texts", "export", "figures", "lang", "show")
    examples: ClassVar[tuple[str, ...]] = (
        "base lora",
        "runs/* --base base --export xlsx csv --figures figures --figure-width 3.3in",
        "lora --show Accounting/test/17",
    )
    words: ClassVar[dict[str, tuple[str, ...]]] = {"export": FORMATS}

    output: Path | None = Field(None, description="the HTML file; default: report.html in the run directory (one run), else here")
    export: list[str] = Field([], description="csv, json, xlsx, lm-eval (comma-separated): written beside the HTML file")
    no_texts: bool = Field(False, description="leave out all texts of questions and models: ids and letters only, fit for sharing")
    figures: Path | None = Field(None, description="directory for the charts as SVG, PNG and PDF")
    figure_width: Annotated[float | None, BeforeValidator(_inches)] = Field(
        None, gt=0.5, lt=50, description="width of the figures, such as 3.3in, 84mm or 8.4cm; default: their own"
    )
    plan: Path | None = Field(None, description="sampling plan (.plan.parquet of kmmlu_fast.sample) to chart")
    show: list[str] = Field([], description="print these questions (such as Accounting/test/17) instead of writing a report")

    @field_validator("export")
    @classmethod
    def _formats(cls, value: list[str]) -> list[str]:
        if unknown := [name for name in value if name not in FORMATS]:
            raise ValueError(f"unknown format {unknown[0]!r}; allowed are {', '.join(FORMATS)}")
        return value
