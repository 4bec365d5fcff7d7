"""Are the sentences true? Type-I error of every claim, coverage of every interval, power of planted effects,
by simulation in the worlds of ``bench.tuned_worlds``, ``bench.foreign_worlds``, ``bench.form_worlds`` and
``bench.sample_worlds``.

In: a seed and a number of simulated pairs. Out: tables, and one JSON line last with the shares by sentence or
interval and number of questions (``type_one``, ``coverage``, ``power``, ``foreign``, ...), ``worlds`` (the
worst claim and the lowest coverage of each world beside their bounds) and ``ok``. Seeded, whatever the
number of processes. No model; of the data set only keys, subjects and the overlap list.

Bounds: a claim where there is nothing to claim in at most 5 %, an interval that holds the truth in 93 to
97 %, each with two standard errors. A cell outside of them is drawn afresh with three times as many pairs,
and if it is still outside with twelve times as many; the last draw counts. Of some three hundred cells
several are out by chance: one of 20 pairs is outside with its third claim. In foreign worlds only the lower
bound of an interval counts: where next to nothing changes, an honest interval covers more.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, table
from bench.foreign_worlds import (
    FOREIGN,
    count_command_claims,
    count_copy_claims,
    count_foreign_claims,
    count_seed_claims,
    real_questions,
)
from bench.form_worlds import FORM_WORLDS, count_form_claims
from bench.sample_worlds import SAMPLE_WORLDS, measure_coverage
from bench.tuned_worlds import SINGLE_CLAIMS, WORLDS, Claims, count_tuned_claims, draw_truths
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main

SIZES = (45, 90, 225, 450, 2_250, 0)  # questions; 0 = all 35,030
FULL_SHARE = 0.1  # of the pairs that full-size worlds get: they take ten times as long
LEAST_FULL = 40  # of which half have letters alone: 20 that see a claim made in every third pair
PART, FULL_PART = 25, 4  # pairs of a part, the unit of work: a few seconds
COMMANDS = 400  # repeats of six commands
REDRAWN = (3, 12)  # times as many pairs for a cell out of bounds, and for one that stays out
PROGRESS_SEC = 8.0
FALSE_KINDS, COVERAGE_KINDS = ("type_one", "foreign", "forms"), ("coverage", "foreign_coverage")
TITLES = {
    "type_one": "Type-I error",
    "coverage": "Coverage of 95 % intervals",
    "power": "Power",
    "foreign": "False claims in worlds that nothing was tuned to",
    "foreign_coverage": "Coverage of 95 % intervals in worlds that nothing was tuned to",
    "conditional": "Claims made under an assumption that is false there",
    "forms": "False claims of form, letter habit or the rest",
    "forms_power": "Form, letter habit and the rest where they are the cause",
}


class SoundnessConfig(BenchConfig):
    """python -m bench.soundness: type-I error, coverage and power of what compare says, by simulation."""

    simulated: PositiveInt = Field(
        300,
        description=(
            "simulated pairs per world and size (full size: a tenth, but 40 at least; foreign worlds: half,"
            " worlds of written form: a quarter)"
        ),
    )
    seed: int = Field(0, description="seed of the simulation")
    sizes: list[int] = Field(list(SIZES), description="questions of a run; 0 = all 35,030")
    truth_pairs: PositiveInt = Field(
        40, description="full-size pairs whose mean is what an interval should cover"
    )
    quick: bool = Field(
        False, description="fewer and smaller pairs: a check of a minute or two, not a record"
    )
    kmmlu: Path = Field(Path("../shared/kmmlu"), description="KMMLU's files, for the real keys and overlap")
    jobs: int = Field(0, ge=0, description="processes; 0 = as many as cores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A world at one size."""

    family: str
    world: str
    n: int  # 0: all

    @property
    def size(self) -> str:
        return str(self.n or 35_030)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of a cell's pairs, from a generator of their own: who computes them makes no difference."""

    cell: Cell
    seed: int
    draw: int  # 0, or how often it was drawn afresh
    place: int
    number: int
    folder: str


def count_claims(part: Part, truth: Mapping[str, float]) -> Claims:
    """The claims of one part, pair by pair."""
    cell, number = part.cell, part.number
    words = f"{cell.family} {cell.world}".encode()
    random = np.random.default_rng([part.seed, part.draw, part.place, cell.n, *words])
    if cell.family == "truth":
        return {"truth": draw_truths(cell.world, random, number)}  # type: ignore[dict-item]
    if cell.family == "tuned":
        return count_tuned_claims(cell.world, cell.n, random, number, truth)
    if cell.family == "forms":
        return count_form_claims(cell.world, cell.n, random, number)
    if cell.family == "samples":
        return count_sample_coverage(cell.world, cell.n, int(random.integers(2**31)), number)
    if cell.world == "commands":
        return count_command_claims(cell.n, random, number)
    if cell.world == "seeds":
        return count_seed_claims(cell.n, random, number)
    if cell.world == "copies":
        return count_copy_claims(cell.n, random, number)
    return count_foreign_claims(cell.world, cell.n, random, number, part.folder)


def count_sample_coverage(world: str, n: int, seed: int, number: int) -> Claims:
    """Whether avg@8's two intervals hold the truth."""
    shares = measure_coverage(world, n, 8, seed, number)
    names = [f"avg@8, {of}, {world} world" for of in ("other questions", "the same questions")]
    held = [round(share * number) for share in shares]
    return {
        "coverage": {
            name: [True] * count + [False] * (number - count) for name, count in zip(names, held, strict=True)
        }
    }


def plan_cells(config: SoundnessConfig) -> dict[Cell, int]:
    """Every world at every size that it is asked at, with its number of pairs."""
    pairs = config.simulated

    def share(n: int, number: int) -> int:
        return max(LEAST_FULL if pairs >= 200 else 4, int(number * FULL_SHARE)) if n == 0 else max(1, number)

    cells: dict[Cell, int] = {}
    for n in config.sizes:
        for world in (*WORLDS, *SINGLE_CLAIMS):
            cells[Cell(family="tuned", world=world, n=n)] = share(n, pairs)
        for world in SAMPLE_WORLDS if n else ():
            cells[Cell(family="samples", world=world, n=n)] = pairs
        if n == 0 or n >= 450:  # under 30 overlapping questions nothing is said of them
            for world in (*FOREIGN, "seeds"):
                cells[Cell(family="foreign", world=world, n=n)] = share(n, pairs // 2)
        if 450 <= n <= 2_250:
            for world in FORM_WORLDS:
                cells[Cell(family="forms", world=world, n=n)] = share(n, pairs // 4)
        if 225 <= n <= 2_250:
            cells[Cell(family="foreign", world="commands", n=n)] = COMMANDS if pairs >= 200 else pairs
    cells[Cell(family="foreign", world="copies", n=2_250)] = max(1, pairs // 20)
    return cells


def plan_parts(cells: Mapping[Cell, int], config: SoundnessConfig, draw: int = 0) -> list[Part]:
    """The cells' pairs in parts, the long ones first."""
    parts = []
    for cell, number in cells.items():
        most = FULL_PART if cell.n == 0 else PART
        for place, start in enumerate(range(0, number, most)):
            count = min(most, number - start)
            part = Part(
                cell=cell,
                seed=config.seed,
                draw=draw,
                place=place,
                number=count,
                folder=str(config.kmmlu),
            )
            parts.append(part)
    return sorted(parts, key=lambda part: part.cell.n != 0)


def run_parts(
    pool: ProcessPoolExecutor, parts: list[Part], truth: Mapping[str, Mapping[str, float]], what: str
) -> dict[Cell, Claims]:
    """The parts' claims by cell, in the parts' order; says every few seconds how far it is."""
    waiting: dict[Future[Claims], Part] = {
        pool.submit(count_claims, part, truth.get(part.cell.world, {})): part for part in parts
    }
    done: dict[Part, Claims] = {}
    began = told = time.monotonic()
    while waiting:
        finished, _ = wait(waiting, timeout=PROGRESS_SEC / 2, return_when=FIRST_COMPLETED)
        for future in finished:
            done[waiting.pop(future)] = future.result()
        now = time.monotonic()
        if now - told >= PROGRESS_SEC / 2 or not waiting:
            told = now
            note(f"{what}: {len(done):,} of {len(parts):,} parts, {(now - began) / 60:.1f} min")
    cells: dict[Cell, Claims] = {}
    for part in parts:
        claims = cells.setdefault(part.cell, defaultdict(lambda: defaultdict(list)))
        for kind, name, made in each_claim(done[part]):
            claims[kind][name].extend(made)
    return cells


def each_claim(claims: Claims) -> Iterator[tuple[str, str, list[bool]]]:
    """(kind, name, one entry a pair) of all."""
    for kind, names in claims.items():
        for name, made in names.items():
            yield kind, name, made


def bounds_of(kind: str, pairs: int) -> tuple[float, float]:
    """Between which shares a cell of so many pairs lies if all is well; two standard errors included."""
    error = 2 * (0.05 * 0.95 / pairs) ** 0.5
    if kind in FALSE_KINDS:
        return 0.0, 0.05 + error
    if kind == "coverage":
        return 0.93 - error, min(1.0, 0.97 + error)
    return (0.93 - error, 1.0) if kind == "foreign_coverage" else (0.0, 1.0)


def is_within(claims: Claims) -> bool:
    """Whether all of a cell's shares are within their bounds."""
    for kind, _, made in each_claim(claims):
        low, high = bounds_of(kind, len(made))
        if not low <= float(np.mean(made)) <= high:
            return False
    return True


def redraw_outside(
    cells: dict[Cell, Claims],
    planned: Mapping[Cell, int],
    draw_afresh: Callable[[Mapping[Cell, int], int], Mapping[Cell, Claims]],
) -> dict[str, dict[str, Any]]:
    """Replaces cells that are out of bounds by fresh draws of more pairs. Returns each share that was outside
    when it first was, and as it is now.
    """
    first: dict[tuple[Cell, str, str], list[bool]] = {}
    for draw, times in enumerate(REDRAWN, start=1):
        outside = {cell: times * planned[cell] for cell, claims in cells.items() if not is_within(claims)}
        if not outside:
            break
        for cell in outside:
            for kind, name, made in each_claim(cells[cell]):
                if not is_within({kind: {name: made}}):
                    first.setdefault((cell, kind, name), made)
        cells.update(draw_afresh(outside, draw))
    return {
        f"{name}, {cell.size} questions": {
            "share": round(float(np.mean(made)), 4),
            "pairs": len(made),
            "fresh_share": round(float(np.mean(cells[cell][kind][name])), 4),
            "fresh_pairs": len(cells[cell][kind][name]),
        }
        for (cell, kind, name), made in first.items()
    }


def judge_worlds(cells: Mapping[Cell, Claims]) -> dict[str, dict[str, Any]]:
    """Each world's false claim and coverage nearest to their bounds, or furthest outside."""
    worlds: dict[str, dict[str, Any]] = {}
    for cell, claims in cells.items():
        prefix = f"{cell.family}: " if cell.family in ("forms", "samples") else ""
        world = worlds.setdefault(f"{prefix}{cell.world}", {"ok": True, "cells": 0})
        for kind, name, made in each_claim(claims):
            low, high = bounds_of(kind, len(made))
            share = float(np.mean(made))
            room = share - low if kind in COVERAGE_KINDS else high - share
            which = {**dict.fromkeys(FALSE_KINDS, "claim"), **dict.fromkeys(COVERAGE_KINDS, "coverage")}.get(
                kind
            )
            if which is None:
                continue
            world["cells"] += 1
            world["ok"] = world["ok"] and low <= share <= high
            if which not in world or room < world[which]["room"]:
                bound = low if which == "coverage" else high
                world[which] = {
                    "name": name,
                    "questions": cell.n or 35_030,
                    "share": round(share, 4),
                    "bound": round(bound, 4),
                    "pairs": len(made),
                    "room": round(room, 4),
                }
    return worlds


def measure(config: SoundnessConfig) -> dict[str, Any]:
    """All worlds and sizes; shares by sentence or interval, and n."""
    if real_questions(str(config.kmmlu)) is None:
        note(f"{config.kmmlu} has no KMMLU files: keys and overlap are invented")
    planned = plan_cells(config)
    jobs = config.jobs or len(os.sched_getaffinity(0))
    # A forked child of a process whose polars has threads waits forever.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        known = {Cell(family="truth", world=name, n=0): config.truth_pairs for name in ("gain", "mixture")}
        truth = {
            cell.world: {name: float(np.mean(values)) for name, values in claims["truth"].items()}
            # The overlap is drawn at random: its gap is 0.
            | {"overlap gap": 0.0}
            for cell, claims in run_parts(pool, plan_parts(known, config), {}, "true values").items()
        }
        cells = run_parts(pool, plan_parts(planned, config), truth, "pairs")

        def draw_afresh(outside: Mapping[Cell, int], draw: int) -> dict[Cell, Claims]:
            note(f"{len(outside)} of {len(cells)} cells are out of bounds and drawn afresh")
            return run_parts(pool, plan_parts(outside, config, draw), truth, "fresh pairs")

        redrawn = redraw_outside(cells, planned, draw_afresh)
    result: dict[str, Any] = {kind: defaultdict(dict) for kind in TITLES}
    for cell, claims in cells.items():
        for kind, name, made in each_claim(claims):
            result[kind][name][cell.size] = round(float(np.mean(made)), 4)
    worlds = judge_worlds(cells)
    return {
        **result,
        "simulated": config.simulated,
        "type_one_within": all(
            is_within({kind: names})
            for claims in cells.values()
            for kind, names in claims.items()
            if kind == "type_one"
        ),
        "redrawn": redrawn,
        "worlds": worlds,
        "ok": all(world["ok"] for world in worlds.values()),
    }


def show_worlds(worlds: Mapping[str, Mapping[str, Any]]) -> str:
    """Each world's bounds, as a table."""
    rows = []
    for name, world in worlds.items():
        row = {"world": name, "cells": world["cells"], "ok": "yes" if world["ok"] else "NO"}
        for which in ("claim", "coverage"):
            worst = world.get(which, {})
            row[f"worst {which}"] = worst.get("share")
            row["at most" if which == "claim" else "at least"] = worst.get("bound")
            row[f"of ({which})"] = f"{worst['name']}, {worst['questions']:,}" if worst else None
        rows.append(row)
    return table("Bounds of each world", rows)


def main(argv: list[str] | None = None) -> int:
    def body() -> None:
        config = parse_config(SoundnessConfig, argv, "python -m bench.soundness")
        if config.quick:
            config = config.model_copy(update={"simulated": 40, "truth_pairs": 4, "sizes": [450, 2_250]})
        result = measure(config)
        sizes = [str(size or 35_030) for size in config.sizes]
        shown = []
        for kind, title in TITLES.items():
            rows = [
                {"of": name, **{size: shares.get(size) for size in sizes}}
                for name, shares in result[kind].items()
            ]
            shown.append(table(title, rows))
        finish("soundness", config, argv, result, [*shown, show_worlds(result["worlds"])])

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
