"""What once broke a reader, kept: each file gives one error of one line."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from bench.faults import attacks_around
from bench.faults.attacks_around import replay_corpus
from bench.faults.drawn import mutate_bytes, mutate_json
from bench.inputs import Inputs
from kmmlu_fast.core.errors import ConfigError, KmmluError
from kmmlu_fast.core.reading import read_json, read_yaml
from kmmlu_fast.evaluation.adapter_probe import FILE, load_base_probe
from kmmlu_fast.runs.checks import check_config
from kmmlu_fast.runs.loading import load_run_argument
from kmmlu_fast.runs.metrics import Metrics, parse_metrics

CORPUS = replay_corpus(Path(__file__).parent / "corpus")


def read(path: Path) -> None:
    kind = "".join(path.suffixes)
    if kind == ".yaml":
        read_yaml(path, f"--config {path}", ConfigError)
    elif kind == ".csv":
        load_run_argument(str(path))
    elif kind == ".metrics.json":
        parse_metrics(read_json(path), path, Metrics)
    elif kind == ".config.json":
        check_config(read_json(path), path)
    else:
        raise AssertionError(f"{path}: no reader for {kind}")


@pytest.mark.parametrize(
    "path", [path for path in CORPUS if ".probe" not in path.suffixes], ids=lambda p: p.name
)
def test_a_find_is_told_in_one_line(path: Path) -> None:
    with pytest.raises(KmmluError) as caught:
        read(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_a_bent_probe_is_not_used(tmp_path: Path) -> None:
    shutil.copyfile(Path(__file__).parent / "corpus" / "number-is-text.probe.json", tmp_path / FILE)
    assert load_base_probe(tmp_path, "key", (1, 2)) is None


@pytest.mark.parametrize("number", range(5))
def test_the_seed_alone_decides_what_is_drawn(number: int) -> None:
    document = {"a": [1, 2.5, "x"], "b": {"c": None}}
    texts = {mutate_json(document, random.Random(number)) for _ in range(2)}
    assert len(texts) == 1 and json.loads(texts.pop()) is not document
    assert mutate_bytes(b"text", random.Random(number)) == mutate_bytes(b"text", random.Random(number))


def test_weights_changed_in_place_are_another_model(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "config.json").write_text("{}")
    for number in range(7):
        work = tmp_path / f"work{number}"
        work.mkdir()
        inputs = Inputs(tmp_path, work, tmp_path / "good", tmp_path)
        assert not attacks_around._weights(inputs, random.Random(number)).wrong
