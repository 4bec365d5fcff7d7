"""python -m bench.faults --minutes N: attack every verb with malformed inputs, kill it, fill its disk, and
count what broke.

In: minutes and a seed. Out: what was found, a table, and one JSON line last: ``tried, clean, done, traceback,
silently_wrong, overwritten,
hang, over_memory, kills, kill_problems``. *clean* is one line and exit code 2, *done* is a command that ended
well; all others are
faults of this project. Knows nothing of what may be done about them.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field

from bench import common
from bench.attacks import Attack, Inputs, attack
from bench.bending import make_good, make_run
from bench.killing import LEAN, Ended, Job, Watcher
from bench.kills import Place, disturb, scenarios, uninterrupted
from kmmlu_fast.core.flags import parse

OVER_BYTES = 1 << 30
OUTCOMES = ("clean", "done", "traceback", "silently_wrong", "overwritten", "hang", "over_memory", "other")


class FaultsConfig(common.BenchConfig):
    """python -m bench.faults: malformed inputs, kills and full disks, for a number of minutes."""

    minutes: float = Field(
        3.0, gt=0, description="how long; a third of it goes to kills, all with --scenario"
    )
    seed: int = Field(0, ge=0, description="another seed, other attacks")
    tries: int | None = Field(None, ge=1, description="attacks at most, whatever the minutes say")
    scenario: list[str] = Field(
        [],
        description="kill only these (eval, sample, export, merge, training, ...); default: all but training",
    )
    kills: int | None = Field(
        None, ge=0, description="kills a scenario at most; default: what the minutes allow"
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    config = parse(FaultsConfig, argv, "python -m bench.faults")
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        place, inputs = prepare(root, training="training" in config.scenario)
        end = time.monotonic() + config.minutes * 60
        counts: Counter[str] = Counter()
        problems: list[str] = []
        with Watcher(
            *LEAN, "transformers", "torch", *(["unsloth"] if "training" in config.scenario else [])
        ) as watcher:
            place.watcher = watcher
            if config.kills != 0:
                counts += kill(
                    config, place, watcher, end - (0 if config.scenario else config.minutes * 40), problems
                )
            attack_until(config, inputs, watcher, end, counts, problems)
        for problem in problems:
            common.note(problem)
        result = {
            "tried": sum(counts[name] for name in OUTCOMES),
            **{name: counts[name] for name in (*OUTCOMES, "kills", "kill_problems")},
        }
        common.finish(
            "faults",
            config,
            argv,
            {"seed": config.seed, "minutes": config.minutes, **result},
            [common.table("attacks and kills", [result])],
        )
        return 1 if problems else 0
    finally:
        shutil.rmtree(root, ignore_errors=True)


def prepare(root: Path, training: bool = False) -> tuple[Place, Inputs]:
    """Good inputs: a tiny model, an adapter, one file of every kind."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny import make_tiny_adapter, make_tiny_model

    from kmmlu_fast.data import dataset
    from kmmlu_fast.data.subjects import find_subjects

    model = make_tiny_model(root / "model", chat=True)
    adapter = make_tiny_adapter(model, root / "lora", scale=20.0)
    make_good(root / "good")
    make_run(root / "good" / "run", dataset.load_frame("sample", "test", find_subjects(["Law", "Math"])))
    place = Place(root, model, adapter, root / "good" / "rows.jsonl" if training else None)
    return place, Inputs(root / "good", root / "work", model, adapter)


def attack_until(
    config: FaultsConfig,
    inputs: Inputs,
    watcher: Watcher,
    end: float,
    counts: Counter[str],
    problems: list[str],
) -> None:
    """Attacks until the time or their number is up. The seed alone decides them."""
    number = 0
    while time.monotonic() < end and (config.tries is None or number < config.tries):
        chance = random.Random(f"{config.seed}:{number}")
        shutil.rmtree(inputs.folder, ignore_errors=True)
        inputs.folder.mkdir(parents=True)
        made = attack(inputs, chance)
        before = digests(inputs.folder)
        cache = inputs.folder.parent / "cache"
        job = Job(
            made.verb,
            made.argv,
            str(inputs.folder),
            environment={"KMMLU_FAST_CACHE": str(cache), **made.environment},
        )
        outcome, why = judge(made, watcher.run(job), before, inputs.folder)
        counts[outcome] += 1
        if outcome not in ("clean", "done"):
            told = f"{made.verb} {' '.join(made.argv)[:300]!r}: {why}"
            problems.append(f"{config.seed}:{number} {outcome}: {made.name}: {told}")
        number += 1


def digests(folder: Path) -> dict[str, str]:
    """Every ordinary file below a folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def judge(made: Attack, ended: Ended, before: dict[str, str], folder: Path) -> tuple[str, str]:
    """(outcome, what was said) of one attack."""
    after = digests(folder)
    tail = ended.err[-700:]
    if lost := [name for name, digest in before.items() if after.get(name) != digest]:
        return "overwritten", f"{lost[0]}"
    if ended.code is None:
        return "hang", tail
    if ended.peak_bytes > OVER_BYTES:
        return "over_memory", f"{ended.peak_bytes / 2**30:.2f} GiB"
    if (
        "Traceback" in ended.err
        or "a fault in kmmlu_fast itself" in ended.err
        or ended.code in (70, 98, 99)
        or ended.code < 0
    ):
        return "traceback", tail + _details(ended.err)
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    if ended.code == 2:
        control = any(ord(c) < 32 and c != "\n" and c != "\t" for c in ended.err)
        return (
            ("clean", "")
            if len(lines) == 1 and not control and len(lines[0]) < 4000
            else ("other", f"{len(lines)} lines: {tail}")
        )
    if ended.code in (0, 1):
        return ("silently_wrong", ended.out[-300:]) if made.wrong else ("done", "")
    return "other", f"exit code {ended.code}: {tail}"


def _details(err: str) -> str:
    """The end of the traceback that a fault of the program wrote."""
    path = next((word.rstrip(";") for word in err.split() if "/fault-" in word), None)
    return (
        "\n" + Path(path).read_text(encoding="utf-8", errors="replace")[-900:]
        if path and Path(path.rstrip(";")).is_file()
        else ""
    )


def kill(
    config: FaultsConfig, place: Place, watcher: Watcher, end: float, problems: list[str]
) -> Counter[str]:
    """Kills, signals and full disks, in turn over the scenarios until the time is up or each has had its
    number.
    """
    chosen = [one for one in scenarios(place) if not config.scenario or one.name in config.scenario]
    known = {one.name: uninterrupted(one, place, watcher) for one in chosen}
    counts: Counter[str] = Counter()
    chance = random.Random(config.seed)
    done: Counter[str] = Counter()
    most = config.kills if config.kills is not None else 10**9
    while time.monotonic() < end and any(done[one.name] < most for one in chosen):
        for one in chosen:
            if time.monotonic() >= end or done[one.name] >= most:
                continue
            wanted, events = known[one.name]
            how = (
                chance.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], [8, 1, 1])[0]
                if not one.real
                else signal.SIGKILL
            )
            full = chance.random() < 0.1 and not one.real
            size = chance.choice([500, 3_000, 20_000, 200_000]) if full else None
            problem = disturb(
                one, place, watcher, wanted, 0 if full else chance.randrange(1, events + 1), how, size
            )
            counts["kills"] += 1
            done[one.name] += 1
            if problem:
                counts["kill_problems"] += 1
                problems.append(problem)
    common.note("kills: " + ", ".join(f"{name} {count}" for name, count in done.items()))
    return counts


def _quiet() -> dict[str, Any]:
    return {
        name: os.environ.setdefault(name, value)
        for name, value in (("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false"))
    }


if __name__ == "__main__":
    _quiet()
    sys.exit(main())
