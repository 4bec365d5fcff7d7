"""``python -m kmmlu_fast.compare FIRST SECOND...``: is the second better, by how much, where, and is it letter habit?

In: two or more runs (``importers``). Out: one screen of text, and a JSON file with all of it on request. Every run is compared
with the first, or with ``--base``. Knows nothing of models or HTML. The wording is ``language`` and ``verdict``, tables are Rich's.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from kmmlu_fast.comparison import Comparison, Settings, compare_pair, headline
from kmmlu_fast.config import Config, parse
from kmmlu_fast.errors import ConfigError, DataError, RunError, run_main
from kmmlu_fast.importers import LoadedRun, load_all
from kmmlu_fast.language import Texts, texts
from kmmlu_fast.store import read_json
from kmmlu_fast.verdict import verdict


class PairsConfig(Config):
    """What compare and report have in common: which runs, and how pairs of them are compared."""

    positional: ClassVar[str | None] = "runs"

    runs: list[str] = Field(
        description="run directories, lm-eval outputs, score files, or predictions tables FILE.csv[:COLUMN]; the first is the base"
    )
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


def dataset_of(config: PairsConfig) -> str | None:
    """--dataset; without it, what the run directories were over, if that is here: the sample or a local directory."""
    if config.dataset is not None:
        return None if config.dataset == "none" else config.dataset
    named = set()
    for argument in config.runs:
        path = Path(argument) / "config.json"
        if path.is_file():
            named.add(str((read_json(path).get("config") or {}).get("dataset")))
    only = named.pop() if len(named) == 1 else None
    return only if only is not None and (only == "sample" or Path(only).is_dir()) else None


def load_questions_frame(config: PairsConfig) -> pl.DataFrame | None:
    """The dataset's questions, where a dataset is known."""
    from kmmlu_fast.dataset import load_frame

    dataset = dataset_of(config)
    return None if dataset is None else load_frame(dataset, config.split)


def load_runs(config: PairsConfig, at_least: int) -> tuple[list[LoadedRun], pl.DataFrame | None]:
    """The runs of the arguments, the base first; and the dataset's questions where a dataset is known."""
    questions = load_questions_frame(config)
    runs = load_all(config.runs, questions, config.split)
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
        from kmmlu_fast.leakage import overlap_ids

        try:
            with warnings.catch_warnings(action="ignore"):  # absent train files were reported where the dataset was read
                overlap |= overlap_ids(dataset, config.split)
        except DataError:
            pass  # a dataset without a train split overlaps nothing
    return Settings(seed=config.seed, intersection=config.intersection, different_prompts=config.different_prompts, overlap=overlap)


def as_json(runs: list[LoadedRun], pairs: list[Comparison], settings: Settings, lang: str) -> dict[str, Any]:
    """Everything that was found, JSON-able; shares and differences 0-1."""
    t = texts(lang)
    rows = []
    for pair in pairs:
        document = {name: getattr(pair, name) for name in pair.__dataclass_fields__}
        document |= {name: document[name].to_dicts() for name in ("supercategories", "subjects")}
        document |= {name: asdict(document[name]) for name in ("micro", "macro", "letters")}
        document |= {name: asdict(document[name]) if document[name] else None for name in ("clean", "debiased")}
        rows.append({"verdict": verdict(pair, t, lang), **document})
    return {"runs": [headline(run, settings.overlap) for run in runs], "comparisons": rows}


def show(runs: list[LoadedRun], pairs: list[Comparison], refused: list[str], config: CompareConfig, settings: Settings, t: Texts) -> None:
    """Print it all, best seen at 100 columns or more."""
    from rich.console import Console

    from kmmlu_fast import terminal

    console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
    many = len(pairs) > 1
    if len(runs) > 2 or refused:
        console.print(terminal.runs_table([headline(run, settings.overlap) for run in runs], pairs, t, config.lang))
    for pair in pairs:
        terminal.print_pair(console, pair, t, config.lang, brief=many, by_subject=config.by_subject)
    for line in refused:
        console.print(line, style="yellow", markup=False)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse(CompareConfig, argv, "python -m kmmlu_fast.compare")
        t = texts(config.lang)
        runs, _ = load_runs(config, at_least=2)
        settings = settings_of(config)
        pairs, refused = [], []
        for other in runs[1:]:
            try:
                pairs.append(compare_pair(runs[0], other, settings))
            except RunError as error:
                if len(runs) == 2 and not (runs[0].predictions is None or other.predictions is None):
                    raise
                refused.append(t("not_comparable", first=runs[0].name, second=other.name, why=str(error)))
        if config.json_file is not None:
            document = json.dumps(as_json(runs, pairs, settings, config.lang), ensure_ascii=False, indent=2)
            config.json_file.write_text(document + "\n", encoding="utf-8")
        show(runs, pairs, refused, config, settings, t)

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
