"""Every reader: any bytes in, a value or one KmmluError out, nothing else. Hypothesis draws bytes, texts and
bent documents.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from score_runs import read_score_run

from bench.faults.bending import bend_bytes, bend_csv, bend_frame, bend_json, make_good, make_run
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core import reading, table_files
from kmmlu_fast.core.errors import ConfigError, DataError, KmmluError
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line, strip_control_characters
from kmmlu_fast.data import dataset
from kmmlu_fast.data.alpaca import read_sft_rows
from kmmlu_fast.data.records import read_records
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.adapters import read_adapter_card_file, read_training_log
from kmmlu_fast.models.model import Model
from kmmlu_fast.reporting.comparison_settings import read_overlap_ids
from kmmlu_fast.runs.loading import load_run_argument
from kmmlu_fast.runs.store import load_run_directory

FEW = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "json": (".json", reading.read_json),
    "csv": (".csv", table_files.read_csv),
    "lossy csv": (".csv", lambda path: table_files.read_csv(path, lossy=True)),
    "parquet": (".parquet", table_files.read_parquet),
    "yaml": (".yaml", lambda path: reading.read_yaml(path, "--config")),
    "records": (".jsonl", read_records),
    "rows": (".jsonl", read_sft_rows),
    "overlap": (".json", read_overlap_ids),
    "overlap.csv": (".csv", read_overlap_ids),
    "scores": (".json", read_score_run),
    "scores.csv": (".csv", read_score_run),
    "a run's argument": (".csv", lambda path: load_run_argument(str(path))),
    "a run's lines": (".jsonl", lambda path: load_run_argument(str(path))),
    "a run's document": (".json", lambda path: load_run_argument(str(path))),
    "a run's sheet": (".xlsx", lambda path: load_run_argument(str(path))),
    "a run's log": (".eval", lambda path: load_run_argument(str(path))),
    "arrow": (".arrow", table_files.read_arrow),
    "settings": (".yaml", lambda path: parse_config(EvalConfig, ["--config", str(path)], "eval")),
    "log": (".jsonl", read_training_log),
}


def survives(read: Callable[[Path], Any], path: Path) -> Any:
    """The value, or the KmmluError: one line that names the file. Anything else fails the test."""
    try:
        return read(path)
    except KmmluError as error:
        assert "\n" not in one_line(str(error)) and len(one_line(str(error))) <= 3100
        return error


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "good"
    make_good(folder)
    make_run(folder / "run", dataset.load_frame("sample", "test", find_subjects(["Law", "Math"])))
    return folder


@pytest.mark.parametrize("name", READERS)
@FEW
@given(data=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes(name: str, data: bytes, tmp_path: Path) -> None:
    suffix, read = READERS[name]
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    survives(read, path)


@pytest.mark.parametrize("name", ["json", "records", "overlap", "scores", "log"])
@FEW
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(max_size=8) | st.just("subject"), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_json(name: str, document: Any, tmp_path: Path) -> None:
    suffix, read = READERS[name]
    path = tmp_path / f"any{suffix}"
    path.write_text(json.dumps(document), encoding="utf-8", errors="replace")
    survives(read, path)


@FEW
@given(
    seed=st.integers(0, 10**9),
    name=st.sampled_from(["scores.json", "ids.json", "rows.jsonl", "any.jsonl", "table.csv", "scores.csv"]),
)
def test_good_files_bent(good: Path, tmp_path: Path, seed: int, name: str) -> None:
    chance, data = random.Random(seed), (good / name).read_bytes()
    path = tmp_path / name
    if chance.random() < 0.5:
        path.write_bytes(bend_bytes(data, chance))
    elif name.endswith(".csv"):
        path.write_text(bend_csv(data.decode("utf-8-sig"), chance), encoding="utf-8", errors="replace")
    else:
        lines = data.decode().splitlines()
        lines[0] = bend_json(json.loads(lines[0]), chance)
        path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    for suffix, read in READERS.values():
        if path.suffix == suffix:
            survives(read, path)


@FEW
@given(seed=st.integers(0, 10**9))
def test_predictions_that_no_evaluation_writes_are_refused(good: Path, tmp_path: Path, seed: int) -> None:
    import shutil

    folder = tmp_path / f"run-{seed}"
    shutil.copytree(good / "run", folder)
    assert load_run_directory(folder).total == 8
    frame, wrong = bend_frame(pl.read_parquet(folder / "predictions.parquet"), random.Random(seed))
    frame.write_parquet(folder / "predictions.parquet")
    found = survives(load_run_directory, folder)
    assert isinstance(found, KmmluError) == wrong and (not wrong or "predictions.parquet" in str(found))


@FEW
@given(
    seed=st.integers(0, 10**9),
    name=st.sampled_from(["config.json", "metrics.json", "environment.json", "predictions.parquet"]),
)
def test_bent_run_directories(good: Path, tmp_path: Path, seed: int, name: str) -> None:
    import shutil

    folder = tmp_path / f"run-{seed}-{name}"
    shutil.copytree(good / "run", folder)
    (folder / name).write_bytes(bend_bytes((folder / name).read_bytes(), random.Random(seed)))
    survives(lambda path: load_run_argument(str(path)), folder)


@FEW
@given(
    document=st.dictionaries(
        st.sampled_from(["hidden_size", "text_config", "max_position_embeddings", "x"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"hidden_size": -1}),
    )
)
def test_odd_model_configs(tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8", errors="replace")
    (tmp_path / "kmmlu_fast.json").write_text(json.dumps(document), encoding="utf-8", errors="replace")
    survives(lambda path: Model("m", str(path), None, "d").context_tokens, tmp_path)
    survives(read_adapter_card_file, tmp_path)


@FEW
@given(text=st.text(max_size=400))
def test_foreign_text_is_fit_for_a_terminal(text: str) -> None:
    assert not any(
        (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000
        for c in strip_control_characters(text)
    )
    assert "\n" not in one_line(text) and strip_control_characters(
        strip_control_characters(text)
    ) == strip_control_characters(text)


def test_terminal_escapes_go_and_korean_stays() -> None:
    assert strip_control_characters("\x1b[31m빨강\x1b[0m \x1b]0;title\x07정답 − “A”\n") == "빨강 정답 − “A”\n"
    assert (
        strip_control_characters("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "link"
        and strip_control_characters("\x9b2Jx\u202ey") == "xy"
    )


def test_values_in_errors_are_bounded() -> None:
    nest: Any = 1
    for _ in range(50):
        nest = [nest, nest]
    assert (
        len(bounded_repr(nest)) < 300
        and len(bounded_repr("x" * 10**6)) < 150
        and len(bounded_repr(10**5000)) < 150
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' appears twice"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 500 + "]" * 500, "nested deeper than 100 levels"),
        ("9" * 5000, "too large a number"),
        ('{"a": ' + "9" * 30 + "}", "too large a number"),
        ("{", "not valid JSON"),
    ],
)
def test_json_that_would_be_read_wrong(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        reading.parse_json(text, "file", DataError)


def test_json_constants_are_let_through_on_request_only() -> None:
    assert reading.parse_json("[NaN]", "x")[0] != 0
    with pytest.raises(DataError, match="NaN is not a JSON number"):
        reading.parse_json("[NaN]", "x", DataError, constants=False)


def test_duplicate_headings_and_patterns_in_names(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match="two columns 'a'"):
        table_files.read_csv(tmp_path / "twice.csv", DataError)
    (tmp_path / "ds1.csv").write_text("a\nwrong\n")
    (tmp_path / "ds[1].csv").write_text("a\nright\n")
    assert table_files.read_csv(tmp_path / "ds[1].csv")["a"].to_list() == ["right"]
    pl.DataFrame({"a": ["right"]}).write_parquet(tmp_path / "ds[1].parquet")
    assert table_files.read_parquet(tmp_path / "ds[1].parquet")["a"].to_list() == ["right"]


def test_devices_pipes_and_files_too_large_are_refused_at_once(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="give a file"):
            reading.read_text(path, DataError)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(DataError, match="larger than"):
        reading.read_text(tmp_path / "large", DataError, 1 << 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "the key 'seed' appears twice"),
        ("max-tokens: 1\nmax_tokens: 2\n", "appears twice"),
        ("a: &a [x, x]\nb: [" + ", ".join(["*a"] * 40) + "]\n", "more than 16 aliases"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("seed: 2020-13-45\n", "cannot be read|seed"),
        ("? [a]\n: 1\n", "not valid YAML|cannot be read|unknown key"),
    ],
)
def test_yaml_that_would_be_read_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        parse_config(EvalConfig, ["--config", str(tmp_path / "c.yaml")], "eval")


def test_homes_in_yaml_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("output_dir: ~/runs\n")
    assert parse_config(EvalConfig, ["--config", "~/c.yaml"], "eval").output_dir == tmp_path / "runs"
    assert parse_config(EvalConfig, ["--output-dir=~/r"], "eval").output_dir == tmp_path / "r"
    for value, message in (
        ("~nosuchuser/r", "there is no such user"),
        ("x" * 5000, "no path is longer"),
        ("a\0b", "NUL"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            parse_config(EvalConfig, ["--output-dir", value], "eval")
        assert len(str(caught.value)) < 500


def test_seeds_have_bounds() -> None:
    with pytest.raises(ConfigError, match="--seed '-1'"):
        parse_config(EvalConfig, ["--seed", "-1"], "eval")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": {"seconds": [1]}}, "speed: seconds is \\[1\\] \\(Input should be a valid number"),
        ({"speed": {"seconds": float("nan")}}, "speed: seconds is nan"),
        ({"speed": []}, "speed is \\[\\]"),
        ({"reasoning": "x"}, "reasoning is 'x'"),
    ],
)
def test_metrics_of_wrong_types_are_refused(
    good: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    import shutil

    folder = Path(shutil.copytree(good / "run", tmp_path / "run"))
    (folder / "metrics.json").write_text(json.dumps(change))
    with pytest.raises(KmmluError, match=message):
        load_run_directory(folder)
    (folder / "metrics.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({"config": [1]}))
    with pytest.raises(KmmluError, match="config is"):
        load_run_directory(folder)


def test_foreign_files_are_read_by_the_one_reader() -> None:
    """Parsers are called in ``core.reading`` and ``core.table_files`` alone: their bounds hold for all files.
    The others read what is packaged, what they wrote themselves into a page, or are run before anything is
    installed (``weights``, whose refusals are caught: ``test_doctor_of_bent_models``).
    """
    own = {
        "core/reading.py",
        "core/table_files.py",
        "machine/model_size.py",
        "reporting/wording/language.py",
        "reporting/html/explorer.py",
    }
    own |= {"prompting/cot_wording.py", "models/tokens.py", "data/difficulty.py"}
    own |= {"models/merging.py", "improvement/row_drawing.py"}  # a file that its own parent wrote
    own |= {"improvement/trials.py"}  # a line that it wrote; any other is put aside with its file
    own |= {"shipping/gate.py", "runs/published.py", "integrations/text_loss.py", "command/help_language.py"}
    own |= {"models/llama_cpp.py", "prompting/template_options.py"}  # llama.cpp's answer, a flag's value
    # What a process of the same user or a child of its own says: bounded, read field by field, with its tests
    # (engines/warm/test_messages.py); an identity is written and read in one line.
    own |= {"engines/warm/messages.py", "engines/warm/identity.py"}
    own |= {"reporting/charts/svg_process.py", "reporting/charts/svg_worker.py"}
    package = Path(reading.__file__).parents[1]
    parsers = ("json.load", "yaml.load", "yaml.safe_load", "pl.read_", "pl.scan_", "pickle.", "torch.load")
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(parser in path.read_text(encoding="utf-8") for parser in parsers)
    }
    assert found == own


@FEW
@given(seed=st.integers(0, 10**9))
def test_doctor_of_bent_models(tmp_path: Path, seed: int) -> None:
    from kmmlu_fast.machine.model_size import find_model_facts

    chance = random.Random(seed)
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 300}
    text = bend_json({**config, "quantization_config": {"quant_method": "x"}, "text_config": {}}, chance)
    (tmp_path / "config.json").write_text(text, encoding="utf-8", errors="replace")
    (tmp_path / "model.safetensors").write_bytes(bend_bytes(b"\x40" + b"\0" * 7 + b"{}" * 32, chance))
    (tmp_path / "model.safetensors.index.json").write_text(bend_json({"weight_map": {"a": "b"}}, chance))
    found = find_model_facts(str(tmp_path))
    assert found is None or 0 <= found.parameters < 1 << 120


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "question,A,A\nq,1,2\n", "two columns 'A'"),
        ("t.jsonl", '{"question": "q", "question": "r"}\n', "appears twice"),
        ("t.jsonl", "[" * 100_000, "nested too deeply|not valid JSON"),
        ("t.json", '[{"a": ' + "9" * 40 + "}]", "too large a number"),
        ("t.parquet", "PAR1 not really PAR1", "Parquet"),
    ],
)
def test_anybodys_tables(tmp_path: Path, name: str, text: str, message: str) -> None:
    from kmmlu_fast.data.row_files import iter_source_rows

    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        list(iter_source_rows(str(tmp_path / name)))
    assert name in str(caught.value)


def test_a_pattern_in_a_parquet_files_name_is_a_name(tmp_path: Path) -> None:
    from kmmlu_fast.data.row_files import iter_source_rows

    pl.DataFrame({"a": ["wrong"]}).write_parquet(tmp_path / "ds1.parquet")
    pl.DataFrame({"a": ["right"]}).write_parquet(tmp_path / "ds[1].parquet")
    assert list(iter_source_rows(str(tmp_path / "ds[1].parquet"))) == [(1, {"a": "right"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: a.jsonl\npath: b.jsonl\n", "the key 'path' appears twice"),
        ("a: &a [x, x]\nb: [" + ", ".join(["*a"] * 40) + "]\n", "more than 16 aliases"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("path: 2020-13-40\n", "cannot be read"),
    ],
)
def test_declarations_that_would_be_read_wrong(tmp_path: Path, text: str, message: str) -> None:
    from kmmlu_fast.data.exam import read_exam

    (tmp_path / "exam.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_exam(tmp_path / "exam.yaml")
    assert "exam.yaml" in str(caught.value)
