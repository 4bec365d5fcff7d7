"""The command itself: help, suggestions, versions, completion, plans, printed tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import predictions, run_directory

from kmmlu_fast import cli, compare, install, train
from kmmlu_fast.command import help_text
from kmmlu_fast.command.flags import SHIPPED, parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.reporting.config import ReportConfig

ROOT = Path(__file__).parents[2]
Caught = pytest.CaptureFixture[str]


def test_version_help_and_suggestion(capsys: Caught) -> None:
    assert cli.dispatch_command(["--version"]) == 0 and capsys.readouterr().out.startswith("kmmlu-fast 0.")
    assert cli.dispatch_command(["help", "train"]) == 0
    whole = capsys.readouterr().out
    assert cli.dispatch_command(["train", "-h"]) == 0
    short = capsys.readouterr().out
    assert (
        len(short) < len(whole) / 2
        and "optimisation:" in whole
        and "examples:" in short
        and "--help" in short
    )
    assert "None)" not in whole and max(map(len, whole.splitlines())) <= 110
    assert cli.dispatch_command(["raport"]) == 2
    assert "did you mean report?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", help_text.CONFIGS)
def test_help_has_every_flag_once_and_examples_that_parse(verb: str, capsys: Caught) -> None:
    cls = help_text.load_config_class(verb)
    named = [name for names in help_text.group_fields(cls).values() for name in names]
    assert sorted(named) == sorted(set(cls.model_fields) - {cls.positional})
    assert len(cls.examples) == 3 and set(cls.first) <= set(cls.model_fields)
    for example in cls.examples:
        words = [word for word in example.split() if word not in ("--config", "configs/train.yaml")]
        if "--plan" in words:
            words += ["--data", "x.jsonl"]
        assert isinstance(parse_config(cls, words, "x"), cls), example
    text = help_text.format_help_markdown(verb)
    assert all(f"--{name.replace('_', '-')}" in text for name in named)


def test_spellings_that_people_use() -> None:
    config = parse_config(
        ReportConfig,
        ["--export", "xlsx", "csv", "runs/a", "--different_prompts", "--figure-width", "84mm"],
        "x",
    )
    assert config.export == ["xlsx", "csv"] and config.runs == ["runs/a"] and config.different_prompts
    assert config.figure_width == pytest.approx(84 / 25.4)
    assert [subject.name for subject in find_subjects(["회계", "한국사"])] == ["Accounting", "Korean-History"]


def test_another_verbs_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a file of settings for train"):
        parse_config(
            help_text.load_config_class("eval"), ["--config", str(ROOT / "configs" / "train.yaml")], "x"
        )


def test_a_plan_needs_neither_torch_nor_rows(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from kmmlu_fast import train; sys.exit(train.run_train_command(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--plan", "--gpu-memory", "24", "--model", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (
        "8.03 B parameters" in done.stdout and "of 24.0 GiB" in done.stdout and "micro-batch" in done.stdout
    )
    assert train.run_train_command(["--gpu-memory", "24", "--data", "x"]) == 2


def test_compare_prints_what_other_programs_read(tmp_path: Path, capsys: Caught) -> None:
    import polars as pl

    runs = [
        str(run_directory(tmp_path / name, name, predictions(1, skill=skill)))
        for name, skill in (("base", 0.5), ("lora", 1.5))
    ]
    assert compare.run_compare_command([*runs, "--format", "csv"]) == 0
    frame = pl.read_csv(capsys.readouterr().out.encode())
    assert frame["subject"].len() == 4 and {"difference", "p_holm", "first_run"} <= set(frame.columns)
    assert compare.run_compare_command([*runs, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparisons"][0]["second"] == "lora"
    assert compare.run_compare_command([*runs, "--format", "md", "--by-subject"]) == 0
    text = capsys.readouterr().out
    assert "- lora is better than base" in text and "| Computer Science | 50 |" in text


@pytest.mark.parametrize("width", [80, 120])
def test_key_columns_stay(
    tmp_path: Path, capsys: Caught, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("base", "a-rather-long-name-adapter", "other")
    runs = [
        str(run_directory(tmp_path / name, name, predictions(seed, skill=0.4 * seed)))
        for seed, name in enumerate(names, 1)
    ]
    assert compare.run_compare_command(runs) == 0
    out = capsys.readouterr().out
    assert "differe…" not in out and "questio…" not in out
    board = out.splitlines()[:4]
    assert all(part in board[0] for part in ("micro", "95 % interval", "against base", "p (mid-p)"))
    assert max(map(len, board)) <= width and any("a-rather-long-name" in line for line in board)


def test_the_shipped_sets_are_the_tried_ones(capsys: Caught) -> None:
    for kind in ("cpu", "gpu"):
        assert (install.PINS / f"{kind}.txt").read_text() == (
            ROOT / "requirements" / f"{kind}.txt"
        ).read_text()
    assert install.run_install_command(["gpu", "--print"]) == 0
    assert str(install.PINS / "gpu.txt") in capsys.readouterr().out
    assert install.run_install_command(["tpu"]) == 2


def test_the_shipped_settings_are_the_clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After pip install there is no configs/, and the README's commands name its files."""
    names, shipped = (
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
        for folder in (ROOT / "configs", SHIPPED)
    )
    assert names == shipped
    for name in names:
        assert (ROOT / "configs" / name).read_bytes() == (SHIPPED / name).read_bytes()
    monkeypatch.chdir(tmp_path)
    rows = ["--data", "x.jsonl"]
    config = parse_config(
        help_text.load_config_class("train"), ["--config", "configs/train.yaml", *rows], "x"
    )
    assert config.model_dump()["rotate_options"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("rotate_options: false\n")
    config = parse_config(
        help_text.load_config_class("train"), ["--config", "configs/train.yaml", *rows], "x"
    )
    assert not config.model_dump()["rotate_options"]
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_config(help_text.load_config_class("train"), ["--config", "elsewhere/train.yaml", *rows], "x")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: Caught) -> None:
    assert cli.dispatch_command(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "--num-fewshot" in text and "leakage" in text
    if shell == "bash":
        ask = (
            text + '\nCOMP_WORDS=(kmmlu-fast train --lora); COMP_CWORD=2; _kmmlu_fast; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["--lora-alpha", "--lora-dropout"]


def test_small_slips_are_answered(tmp_path: Path, capsys: Caught) -> None:
    assert cli.dispatch_command(["help", "completion"]) == 0
    assert "completion [bash|zsh|fish]" in capsys.readouterr().out
    assert cli.dispatch_command(["eval", "demo"]) == 2
    assert "unknown argument 'demo', did you mean --model demo?" in capsys.readouterr().err
    assert cli.dispatch_command(["report"]) == 2
    assert "0 runs given, 1 needed" in capsys.readouterr().err
    table = tmp_path / "table.csv"
    table.write_text("question_id,answer,phi-4\nLaw/test/0,A,A\nLaw/test/1,B,A\n", encoding="utf-8")
    assert cli.dispatch_command(["report", f"{table}:phi4", "--output", str(tmp_path / "r.html")]) == 2
    assert "has no column 'phi4', did you mean phi-4?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["eval", "--model", "./no/such"], "./no/such"),
        (["eval", "--model", "m", "--adapter", "nothing"], "--adapter nothing: no such directory"),
        (["eval", "--model", "m", "--adapter", "a=./no/such"], "--adapter ./no/such: no such directory"),
        (["eval", "--prompt-style", "chat", "--chat-template", "no.jinja"], "no.jinja: no such file"),
        (["eval", "--plan", "--model", "m", "--adapter", "nothing"], "--adapter nothing: no such directory"),
        (["leakage", "nothing.jsonl"], "nothing.jsonl: no such file"),
        (["train", "--model", "org/none", "--data", "nothing.jsonl"], "nothing.jsonl: no such file"),
        (["compare", "--latest"], "holds no finished run; run kmmlu-fast eval first"),
    ],
)
def test_what_is_missing_here_is_named_before_the_hub_is_asked(
    words: list[str], part: str, tmp_path: Path, capsys: Caught, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmmlu_fast.machine import hub

    def refuse(*_: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "hub_problem", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.dispatch_command(words) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1


@pytest.mark.parametrize(("dataset", "private"), [("sample", False), ("elsewhere", True)])
def test_only_texts_that_are_not_free_are_called_private(
    dataset: str, private: bool, tmp_path: Path, capsys: Caught, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmmlu_fast.data import dataset as datasets

    texts = tmp_path / "elsewhere"
    shutil.copytree(datasets.SAMPLE_DIR, texts)
    monkeypatch.chdir(tmp_path)
    frame = predictions(1, sizes={"Law": 4, "Math": 4})
    run = run_directory(tmp_path / "base", "base", frame, dataset=dataset)
    assert cli.dispatch_command(["report", str(run), "--output", "r.html"]) == 0
    assert ("keep it private" in capsys.readouterr().err) == private
