"""What ``compare`` and ``report`` are given: their flags, the runs, the questions' texts, the overlap list.

In: flags. Out: loaded runs with the base first, the dataset's frame, and the settings of a comparison. Knows
nothing of how it is shown.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import BeforeValidator, Field, field_validator

from kmmlu_fast.analysis.comparison import Settings
from kmmlu_fast.analysis.exams import by_exam
from kmmlu_fast.core.errors import ConfigError, DataError, KmmluError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.flags import Config
from kmmlu_fast.core.foreign import shown
from kmmlu_fast.core.reading import expand, parse_json, read_csv, read_parquet, read_text
from kmmlu_fast.data.dataset import input_files as dataset_files
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_rows import load_exam
from kmmlu_fast.data.finding import find_exam
from kmmlu_fast.runs.loading import input_files, load_all
from kmmlu_fast.runs.naming import named as by_name
from kmmlu_fast.runs.naming import without_other_bases
from kmmlu_fast.runs.run import Run

FORMATS = ("csv", "csv.gz", "parquet", "json", "xlsx", "lm-eval")


class PairsConfig(Config):
    """What compare and report have in common: which runs, and how pairs of them are compared."""

    positional: ClassVar[str | None] = "runs"
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "runs": ("base", "latest", "runs_dir"),
        "comparison": (
            "overlap",
            "intersection",
            "different_prompts",
            "margin",
            "population",
            "group",
            "seed",
        ),
        "questions": ("dataset", "split", "exam", "key_audit", "what_moved"),
        "output": (
            "output",
            "overwrite",
            "lang",
            "format",
            "by_subject",
            "json_file",
            "no_texts",
            "export",
            "figures",
            "figure_width",
            "plan",
            "show",
        ),
    }

    runs: list[str] = Field(
        [],
        description=(
            "run directories, lm-eval outputs, score files, or predictions tables FILE.csv[:COLUMN]; the"
            " first is the base. Of runs in --runs-dir also base, an adapter's name, or the last characters"
            " of a fingerprint"
        ),
    )
    latest: bool = Field(
        False, description="the run finished last, beside the base run that was asked the same"
    )
    runs_dir: Path = Field(Path("runs"), description="where --latest and short names are looked up")
    exam: str | None = Field(
        None,
        description=(
            "with runs of several exams: the one in focus; also where a table's questions are from (name or"
            " FILE.yaml)"
        ),
    )
    base: str | None = Field(
        None, description="name of the run that the others are compared with; default: the first"
    )
    dataset: str | None = Field(
        None,
        description=(
            "dataset (hub id, directory, 'sample' or 'none') for texts, overlap and keys; default: the runs'"
            " own, if it is here"
        ),
    )
    split: Literal["train", "dev", "test"] = Field(
        "test", description="split that a predictions table or lm-eval output is over"
    )
    overlap: list[str] = Field(
        ["auto"],
        description=(
            "left out of the clean headline: files of question ids, auto (what overlaps the dataset's train"
            " split), none"
        ),
    )
    intersection: bool = Field(
        False, description="compare on the questions that both runs have, under the same key"
    )
    different_prompts: bool = Field(False, description="compare although the prompts differ")
    margin: float = Field(
        1.0,
        gt=0,
        lt=100,
        description="differences within this many percentage points are equal for all that matters",
    )
    population: Literal["like", "these"] = Field(
        "like",
        description="intervals speak of questions like these, or of these very questions (finite population)",
    )
    seed: int = Field(42, ge=0, lt=2**32, description="seed of resampling")
    lang: Literal["en", "ko"] = Field("en", description="language of the output")


class CompareConfig(PairsConfig):
    """python -m kmmlu_fast.compare: runs over the same questions, question by question."""

    first: ClassVar[tuple[str, ...]] = ("base", "latest", "by_subject", "format", "lang")
    examples: ClassVar[tuple[str, ...]] = ("base lora", "--latest", "runs/*-base-* runs/*-lora-* --format md")

    format: Literal["text", "md", "csv", "json"] = Field(
        "text", description="of what is printed; csv: a row a comparison and subject"
    )
    overwrite: bool = Field(False, description="replace --json-file where it exists")
    by_subject: bool = Field(False, description="list every subject, not only those that changed most")
    json_file: Path | None = Field(None, description="write all numbers to this JSON file as well")
    group: list[str] = Field(
        [], description="adapters of one recipe under several seeds, against the base: NAME=RUN,RUN,..."
    )
    what_moved: bool = Field(
        False, description="fit which sorts of question were gained or lost (needs the dataset's texts)"
    )
    key_audit: bool = Field(
        False,
        description="list question ids that many runs answer against the key, and repeats with other keys",
    )


def read_overlap(path: Path) -> frozenset[str]:
    """Question ids, one a line, as JSON (a list, or ``leakage``'s file), or a CSV or Parquet
    column ``test_id`` or ``question_id``.
    """
    try:
        if path.suffix in (".csv", ".parquet"):
            frame = read_csv(path, DataError) if path.suffix == ".csv" else read_parquet(path, DataError)
            column = next(
                (name for name in ("test_id", "question_id") if name in frame.columns),
                next(iter(frame.columns), ""),
            )
            if not column or frame.schema[column] != pl.String:
                raise DataError(f"{path}: has no column test_id or question_id of texts")
            ids: Any = frame[column].to_list()
        else:
            text = read_text(path, DataError)
            document = (
                parse_json(text, str(path), DataError) if text.lstrip()[:1] in ("[", "{") else text.split()
            )
            ids = document.get("test_ids") if isinstance(document, dict) else document
    except DataError as error:
        raise DataError(f"--overlap {error}; give a text file of question ids, one a line") from error
    if not isinstance(ids, list):
        raise DataError(
            f"--overlap {path}: has no list test_ids; give a text file of question ids, one a line"
        )
    if bad := [value for value in ids if not isinstance(value, str) or value.count("/") < 2]:
        raise DataError(f"--overlap {path}: {shown(bad[0])} is no question id such as Accounting/test/17")
    return frozenset(ids)


def sources(config: PairsConfig) -> list[str]:
    """The run arguments as paths: short names and --latest looked up, once."""
    return list(_sources(tuple(config.runs), config.runs_dir, config.latest))


@functools.cache
def _sources(runs: tuple[str, ...], folder: Path, latest: bool) -> tuple[str, ...]:
    return tuple(by_name(list(runs), folder, latest))


def dataset_of(config: PairsConfig) -> str | None:
    """--dataset; without it, what the run directories were over, if that is here: the sample, a local
    directory, or a hub id whose files are in the hub's cache.
    """
    if config.dataset is not None:
        return None if config.dataset == "none" else config.dataset
    named = set()
    for document in _documents(config):
        as_asked = _part(document, "config").get("dataset") if _exam_name(document) == "kmmlu" else None
        named.add(str(_part(document, "exam").get("dataset") or as_asked or ""))
    only = named.pop() if len(named) == 1 else None
    if not only:
        return None
    if only == "sample" or expand(only).exists():
        return only
    root = cached_root(only)
    return str(root) if root is not None and any((root / "data").glob(f"*-{config.split}.csv")) else None


def cached_root(dataset: str) -> Path | None:
    """Where a hub id's files lie in the hub's cache; None where they do not. Nothing is asked
    of the network.
    """
    if dataset.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(dataset, repo_type="dataset", local_files_only=True))
    except Exception:  # the hub client raises a dozen kinds; all mean that it is not here
        return None


def groups_of(config: CompareConfig) -> dict[str, list[str]]:
    """--group's recipes: name -> runs. ConfigError for an entry without a name."""
    found: dict[str, list[str]] = {}
    name = ""
    for entry in config.group:
        head, equals, tail = entry.partition("=")
        if equals:
            name = head
            found.setdefault(name, [])
        if not name or not (tail if equals else entry):
            raise ConfigError(
                f"--group {entry}: give a recipe's name and its runs, such as --group"
                " lora=runs/lora-s1,runs/lora-s2"
            )
        found[name].append(tail if equals else entry)
    return found


def _documents(config: PairsConfig) -> list[dict[str, Any]]:
    """config.json of the run directories that are of the exam in focus (all, where none is
    named and they are of one).
    """
    found = [
        read_json(path)
        for argument in sources(config)
        if (path := expand(argument, "run") / "config.json").is_file()
    ]
    names = list(dict.fromkeys(_exam_name(document) for document in found))
    focus = config.exam if config.exam in names else names[0] if names else None
    return [document for document in found if _exam_name(document) == focus]


def _exam_name(document: dict[str, Any]) -> str:
    return str(_part(document, "exam").get("name") or "kmmlu")


def _part(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def exam_of(config: PairsConfig) -> Exam | None:
    """The declaration of the exam that the questions are of; None for KMMLU, and where it is
    not to be found any more.
    """
    declared = config.exam
    for document in _documents(config):
        declared = _part(document, "exam").get("declaration") or declared
    if declared is None:
        return None
    try:
        exam = find_exam(str(declared))
    except KmmluError:
        return None
    return None if exam.is_kmmlu else exam


def input_files_of(config: PairsConfig) -> list[Path]:
    """Every file that the flags name to be read: none of them is ever written to."""
    named = [expand(entry, "--overlap") for entry in config.overlap if entry not in ("auto", "none")]
    plan = getattr(config, "plan", None)
    return [*input_files(sources(config)), *named, *([plan] if plan else []), *dataset_files(config.dataset)]


def default_output(config: ReportConfig) -> Path:
    """report.html in the run directory where one was given, else here."""
    only = expand(sources(config)[0], "run") if len(sources(config)) == 1 else None
    return (only if only is not None and (only / "config.json").is_file() else Path()) / "report.html"


def load_questions_frame(config: PairsConfig) -> pl.DataFrame | None:
    """The dataset's questions, where a dataset is known."""
    from kmmlu_fast.data.dataset import read_frame

    dataset, exam = dataset_of(config), exam_of(config)
    if exam is not None:
        at_hand = dataset is not None or exam.path is not None  # faulty rows were reported by the evaluation
        return load_exam(exam, config.split, dataset) if at_hand and config.dataset != "none" else None
    return None if dataset is None else read_frame(dataset, config.split).said()


def load_runs(
    config: PairsConfig, at_least: int, prefix: bool = False
) -> tuple[list[Run], pl.DataFrame | None]:
    """The runs of the arguments, the base first; and the dataset's questions where a dataset is known.

    ``prefix``: runs that stopped early are read too.
    """
    questions = load_questions_frame(config)
    runs = without_other_bases(load_all(sources(config), questions, config.split, prefix), config.base)
    if len(runs) < at_least:
        raise ConfigError(
            f"{len(runs)} run given, {at_least} needed: name a base and at least one other, such as runs/base"
            " runs/lora"
        )
    if config.base is not None:
        chosen = [run for run in runs if config.base in (run.name, run.source, run.config.get("name"))]
        if not chosen:
            raise ConfigError(
                f"--base {config.base!r} is none of the runs {', '.join(run.name for run in runs)}"
            )
        runs = [chosen[0], *[run for run in runs if run is not chosen[0]]]
    return runs, questions


def focused(runs: list[Run], exam: str | None) -> list[Run]:
    """The runs of the exam in focus, under short names: the exam named, else the first run's.
    ConfigError where it has no run.
    """
    groups = by_exam(runs)
    if exam is None:
        return next(iter(groups.values()))
    found = groups.get(exam) or groups.get(find_exam(exam).name)
    if not found:
        raise ConfigError(f"--exam {exam}: none of the runs is of it; they are of {', '.join(groups)}")
    return found


def settings_of(
    config: PairsConfig, questions: pl.DataFrame | None = None, sizes_from: pl.DataFrame | None = None
) -> Settings:
    """How pairs are compared; the overlap list is what --overlap names, together.

    ``questions``: the dataset's frame, for what sort of question moved; ``sizes_from``: for the subjects'
    full sizes alone.
    """
    overlap = frozenset(
        name
        for entry in config.overlap
        if entry not in ("auto", "none")
        for name in read_overlap(expand(entry, "--overlap"))
    )
    known = False
    of_kmmlu = config.split == "test" and exam_of(config) is None
    if "auto" in config.overlap and of_kmmlu and (dataset := dataset_of(config)) is not None:
        from kmmlu_fast.data.overlap import overlap_ids

        try:
            overlap |= overlap_ids(dataset, config.split)
            known = True
        except DataError:
            known = dataset == "sample" or is_whole(
                Path(dataset)
            )  # a dataset without a train split overlaps nothing
    return Settings(
        seed=config.seed,
        intersection=config.intersection,
        different_prompts=config.different_prompts,
        overlap=overlap,
        overlap_known=known
        or "auto" not in config.overlap
        or len(config.overlap) > 1
        or config.split != "test",
        margin=config.margin / 100,
        population=config.population,
        sizes=subject_sizes(questions if questions is not None else sizes_from),
        questions=questions,
    )


def is_whole(folder: Path) -> bool:
    """Whether a directory is a dataset of the user's own making, not the hub's cache, which
    holds only what was asked for.
    """
    return folder.is_dir() and "snapshots" not in folder.parts


def subject_sizes(questions: pl.DataFrame | None) -> dict[str, int]:
    """How many questions each subject has in the dataset's split; {} where the dataset is not known."""
    return {} if questions is None else dict(questions.group_by("subject").len().iter_rows())


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

    overwrite: bool = Field(False, description="replace files that exist; without it nothing is")
    output: Path | None = Field(
        None, description="the HTML file; default: report.html in the run directory (one run), else here"
    )
    export: list[str] = Field(
        [], description="csv, csv.gz, parquet, json, xlsx, lm-eval: written beside the HTML file"
    )
    no_texts: bool = Field(
        False,
        description="leave out all texts of questions and models: ids and letters only, fit for sharing",
    )
    figures: Path | None = Field(None, description="directory for the charts as SVG, PNG and PDF")
    figure_width: Annotated[float | None, BeforeValidator(_inches)] = Field(
        None,
        gt=0.5,
        lt=50,
        description="width of the figures, such as 3.3in, 84mm or 8.4cm; default: their own",
    )
    plan: Path | None = Field(None, description="sampling plan (.plan.parquet of kmmlu_fast.sample) to chart")
    show: list[str] = Field(
        [], description="print these questions (such as Accounting/test/17) instead of writing a report"
    )

    @field_validator("export")
    @classmethod
    def _formats(cls, value: list[str]) -> list[str]:
        if unknown := [name for name in value if name not in FORMATS]:
            raise ValueError(f"unknown format {unknown[0]!r}; allowed are {', '.join(FORMATS)}")
        return value
