"""The flags of ``compare``, ``report`` and ``plan``.

In: the command line, or a program's keyword arguments. Out: a config of one of them, checked
as far as is possible without opening a file. Knows nothing of runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, field_validator

from kmmlu_fast.command.flags import Config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.machine.trackers import check_result_tracker_names
from kmmlu_fast.reporting.export_names import EXPORT_MODULES

FORMATS = tuple(EXPORT_MODULES)


class PairsConfig(Config):
    """The flags that compare and report share: which runs, and how pairs of them are compared."""

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
        ),
        "questions": ("dataset", "split", "exam", "key_audit", "what_moved"),
        "output": (
            "output",
            "overwrite",
            "lang",
            "format",
            "by_subject",
            "json_file",
            "fail_if",
            "junit",
            "report_to",
            "no_texts",
            "export",
            "figures",
            "figure_width",
            "figure_title",
            "plan",
            "show",
            "open",
        ),
    }

    runs: list[str] = Field(
        [],
        description=(
            "run directories, outputs of lm-eval or inspect, score files, or predictions tables (CSV, TSV,"
            " JSON, Parquet, Excel), each with :CHOICE (column, model, group, 5-shot, filter) if needed; the"
            " first is the base. published:NAME is a public run whose answers ship (published:* all of them);"
            " compare also takes published figures by that name. For runs in --runs-dir also base, an"
            " adapter's name, or the last characters of a fingerprint"
        ),
    )
    latest: bool = Field(
        False,
        description="the run that finished last, against the base run with the same questions and prompts",
    )
    runs_dir: Path = Field(Path("runs"), description="where --latest and short names are looked up")
    exam: str | None = Field(
        None,
        description=(
            "with runs of several exams: the one in focus; also the exam of a table's questions (name or"
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
            " own, if it is available locally"
        ),
    )
    split: Literal["train", "dev", "test"] = Field(
        "test", description="split of a predictions table or lm-eval output"
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
        description="differences within this many percentage points count as equal",
    )
    population: Literal["like", "these"] = Field(
        "like",
        description="intervals refer to questions like these, or to exactly these (finite population)",
    )
    group: list[str] = Field(
        [], description="adapters of one recipe under several seeds, against the base: NAME=RUN,RUN,..."
    )
    lang: Literal["en", "ko"] = Field("en", description="language of the output")


class CompareConfig(PairsConfig):
    """python -m kmmlu_fast.compare: runs over the same questions, question by question."""

    first: ClassVar[tuple[str, ...]] = ("base", "latest", "by_subject", "format", "fail_if", "lang")
    examples: ClassVar[tuple[str, ...]] = (
        "base lora",
        "--latest --format md",
        "base lora --fail-if worse --junit gate.xml",
    )

    format: Literal["text", "md", "latex", "csv", "json"] = Field(
        "text",
        description=(
            "output format; latex: booktabs tables and a methods paragraph; csv: a row per comparison and"
            " subject"
        ),
    )
    overwrite: bool = Field(False, description="replace --json-file and --junit if they exist")
    by_subject: bool = Field(False, description="list every subject, not only those that changed most")
    json_file: Path | None = Field(None, description="write all numbers to this JSON file as well")
    fail_if: Literal["worse", "undecided", "not-better"] | None = Field(
        None,
        description=(
            "exit with code 1 if a run is shown to be worse than the base; undecided: also if neither a"
            " change nor equality is shown; not-better: unless it is shown to be better"
        ),
    )
    junit: Path | None = Field(
        None, description="write the result of --fail-if, or of worse, to this JUnit XML file"
    )
    what_moved: bool = Field(
        False, description="fit which kinds of question were gained or lost (needs the dataset's texts)"
    )
    key_audit: bool = Field(
        False,
        description="list questions that many runs answer against the key, and repeats whose keys differ",
    )
    report_to: Annotated[list[str], AfterValidator(check_result_tracker_names)] = Field(
        [],
        description=(
            "trackers that get the results: tensorboard, trackio, wandb, mlflow, or all that are installed;"
            " default: none"
        ),
    )


def _parse_inches(value: Any) -> Any:
    """A length in inches; anything else is left to pydantic's own message."""
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

    overwrite: bool = Field(False, description="replace existing files; without it, nothing is replaced")
    output: Path | None = Field(
        None,
        description="the HTML file; default: report.html in the run directory (one run), else here",
    )
    open: bool = Field(False, description="open the page in the browser")
    export: list[str] = Field([], description=f"{', '.join(FORMATS)}: written beside the HTML file")
    no_texts: bool = Field(
        False,
        description="leave out all texts of questions and models: ids and letters only, safe to share",
    )
    figures: Path | None = Field(None, description="directory for the charts as SVG, PNG and PDF")
    figure_width: Annotated[float | None, BeforeValidator(_parse_inches)] = Field(
        None,
        gt=0.5,
        lt=50,
        description="width of the figures, such as 3.3in, 84mm or 8.4cm; default: their own",
    )
    figure_title: bool = Field(True, description="titles inside the figures; a paper has captions instead")
    plan: Path | None = Field(None, description="sampling plan (.plan.parquet of kmmlu_fast.sample) to chart")
    show: list[str] = Field(
        [], description="print these questions (such as Accounting/test/17) instead of writing a report"
    )

    @field_validator("export")
    @classmethod
    def _check_formats(cls, value: list[str]) -> list[str]:
        if unknown := [name for name in value if name not in FORMATS]:
            raise ValueError(f"unknown format {unknown[0]!r}; allowed are {', '.join(FORMATS)}")
        return value


def parse_recipe_groups(config: PairsConfig) -> dict[str, list[str]]:
    """--group's recipes: name -> runs. ConfigError for an entry without a name."""
    groups: dict[str, list[str]] = {}
    name = ""
    for entry in config.group:
        head, equals, tail = entry.partition("=")
        run = tail if equals else entry
        if equals:
            name = head
            groups.setdefault(name, [])
        if not name or not run:
            raise ConfigError(
                f"--group {entry}: give a recipe's name and its runs, such as --group"
                " lora=runs/lora-s1,runs/lora-s2"
            )
        groups[name].append(run)
    return groups


class PlanConfig(Config):
    """python -m kmmlu_fast.plan: questions, minutes and seeds that it takes to show a difference."""

    positional: ClassVar[str | None] = "base"
    examples: ClassVar[tuple[str, ...]] = (
        "runs/BASE",
        "runs/BASE --difference 0.3 --adapters 4",
        "--discordance 8 --questions 5000",
    )

    base: list[str] = Field(
        [], description="the finished run of the base; default: KMMLU's size, 10 % change"
    )
    difference: float = Field(1.0, gt=0, le=100, description="pp; half and twice of it are shown too")
    adapters: PositiveInt = Field(1, description="adapters that are compared with the base in one command")
    discordance: float | None = Field(
        None,
        gt=0,
        le=100,
        description="% of questions that an adapter changes; default: by the base's margins",
    )
    questions: PositiveInt | None = Field(None, description="questions of the exam; default: the base's")
    seed_deviation: float = Field(
        0.5, ge=0, description="pp; standard deviation of the difference between training seeds"
    )
