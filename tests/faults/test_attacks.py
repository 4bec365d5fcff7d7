"""The attacks of ``bench.faults`` hit something: unbent, every one of their commands succeeds; bent, a fixed
few end well.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.faults import __main__, attacks, attacks_own, hostile
from bench.faults.killing import LEAN, Job, Watcher
from bench.inputs import Attack, Inputs


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Inputs, Watcher]]:
    _, inputs = __main__.prepare(tmp_path_factory.mktemp("attacks"))
    with Watcher(*LEAN, "transformers", "torch") as watcher:
        yield inputs, watcher


KINDS = ("_compare", "_overlap", "_leakage", "_sample", "_train", "_dataset", "_adapter", "_model")
OWN = ("_again", "_beginning", "_trained", "_exam", "_doctor", "_server")


@pytest.mark.parametrize("kind", [*KINDS, *OWN])
def test_unbent_every_command_gets_to_its_end(
    stage: tuple[Inputs, Watcher], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, watcher = stage
    for module in (attacks, attacks_own):
        monkeypatch.setattr(module, "bend", lambda path, chance: None)
    monkeypatch.setattr(attacks_own, "bend_frame", lambda frame, chance: (frame, False))
    monkeypatch.setattr(hostile._Handler, "_reply", hostile._Handler.good)
    for seed in range(2):
        shutil.rmtree(inputs.folder, ignore_errors=True)
        inputs.folder.mkdir()
        made = getattr(attacks_own if kind in OWN else attacks, kind)(inputs, random.Random(seed))
        ended = watcher.run(
            Job(
                made.verb,
                made.argv,
                str(inputs.folder),
                environment={"KMMLU_FAST_CACHE": str(inputs.folder.parent / "cache")},
            )
        )
        if kind == "_train":
            assert ended.err.splitlines()[-1] == "error: stopped before Unsloth"
        elif made.verb in ("compare", "report"):  # a table against a score file is refused for what it is
            assert (
                ended.code == 0
                or "not comparable" in ended.err
                or "question by question" in ended.err
                or "differ" in ended.err
            ), ended.err
        else:
            assert ended.code == 0, (made, ended.err)


def test_a_fixed_few_attacks_end_well(stage: tuple[Inputs, Watcher]) -> None:
    inputs, watcher = stage
    config = __main__.FaultsConfig(seed=2026, tries=60)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    __main__.attack_until(config, inputs, watcher, float("inf"), counts, problems)
    assert not problems and sum(counts.values()) == 60 and counts["clean"] > 30 and counts["done"] > 3


def test_what_counts_as_a_fault(tmp_path: Path) -> None:
    from bench.faults.killing import Ended

    made = Attack("x", "eval", [], wrong=True)
    (tmp_path / "in").write_text("a")
    before = __main__.digests(tmp_path)
    for ended, outcome in (
        (Ended(2, "", "error: no\n", 0, 0, 0.1), "clean"),
        (Ended(0, "", "", 0, 0, 0.1), "silently_wrong"),
        (Ended(None, "", "", 0, 0, 9.0), "hang"),
        (Ended(2, "", "error: a\nerror: b\n", 0, 0, 0.1), "other"),
        (Ended(1, "", "Traceback (most", 0, 0, 0.1), "traceback"),
        (Ended(2, "", "error: \x1b[31m\n", 0, 0, 0.1), "other"),
        (Ended(0, "", "", 0, 2 << 30, 0.1), "over_memory"),
    ):
        assert __main__.judge(made, ended, before, tmp_path)[0] == outcome
    (tmp_path / "in").write_text("b")
    assert __main__.judge(made, Ended(2, "", "error: no\n", 0, 0, 0.1), before, tmp_path)[0] == "overwritten"


def test_a_hang_is_told_from_a_busy_machine(tmp_path: Path) -> None:
    """Sleeping for ever and computing for ever are hangs; each is noticed by its own clock."""
    for name, body in (("sleeps", "time.sleep(600)"), ("computes", "while True: pass"), ("ends", "pass")):
        code = f"import time\ndef main(argv):\n    {body}\n    return 0\n"
        (tmp_path / f"hang_{name}.py").write_text(code)
        environment = {"PYTHONPATH": str(tmp_path)}
        with Watcher("kmmlu_fast.core.errors", environment=environment) as watcher:
            ended = watcher.run(Job(name, [], module=f"hang_{name}", timeout_sec=3.0))
        assert ended.code == (0 if name == "ends" else None), name
