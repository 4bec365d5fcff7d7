"""Defaults < YAML < flags, and every fault in one message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from kmmlu_fast.command.flags import _read_flags, parse_config
from kmmlu_fast.command.help_text import CONFIGS, load_config_class, negated_flag
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.settings import Config
from kmmlu_fast.evaluation.config import EvalConfig

ROOT = Path(__file__).parents[2]
PROG = "python -m kmmlu_fast.eval"


def test_defaults_are_the_public_model_and_data() -> None:
    config = parse_config(EvalConfig, [], PROG)
    assert (config.model, config.dataset, config.split) == ("skt/A.X-4.0-Light", "HAERAE-HUB/KMMLU", "test")


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model: demo\nlimit: 3\nnum-fewshot: 2\nadapter: out/lora\n")
    config = parse_config(EvalConfig, ["--config", str(path), "--limit", "7"], PROG)
    assert (config.model, config.limit, config.num_fewshot, config.adapter, config.seed) == (
        "demo",
        7,
        2,
        ["out/lora"],
        42,
    )


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_switch_has_both_forms_and_flags_win_over_the_file(verb: str, tmp_path: Path) -> None:
    cls = load_config_class(verb)
    switches = [name for name, field in cls.model_fields.items() if field.annotation is bool]
    flags = {"--" + name.replace("_", "-"): True for name in switches} | {
        negated_flag(name): False for name in switches
    }
    assert len(flags) == 2 * len(switches)
    others = {"--" + name.replace("_", "-") for name in cls.model_fields if name not in switches}
    assert not others & set(flags)
    for name in switches:
        for value, flag in ((False, "--" + name.replace("_", "-")), (True, negated_flag(name))):
            values, faults = _read_flags(cls, [flag], verb)
            assert (values, faults) == ({name: not value}, [])


def test_a_flag_turns_off_what_a_file_turned_on(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("overwrite: true\nno_base: true\nadapter: [x]\n")
    config = parse_config(EvalConfig, ["--config", str(path), "--no-overwrite", "--base"], PROG)
    assert (config.overwrite, config.no_base) == (False, False)
    assert parse_config(EvalConfig, ["--overwrite", "--no-overwrite"], PROG).overwrite is False


def test_lists_repeat_and_subjects_split_at_commas() -> None:
    config = parse_config(
        EvalConfig,
        ["--adapter", "a=x,1", "--adapter", "y", "--subjects", "Law,STEM", "--subjects", "Math"],
        PROG,
    )
    assert config.adapter == ["a=x,1", "y"]  # a path may hold a comma
    assert config.subjects == ["Law", "STEM", "Math"]


def test_lists_take_the_words_behind_them() -> None:
    config = parse_config(
        EvalConfig, ["--adapter", "a", "n=b", "--subjects", "Law", "STEM", "--limit", "3"], PROG
    )
    assert (config.adapter, config.subjects, config.limit) == (["a", "n=b"], ["Law", "STEM"], 3)
    with pytest.raises(ConfigError, match="unknown argument 'more'"):
        parse_config(EvalConfig, ["--limit", "3", "more"], PROG)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("moddel: demo\nlimit: many\n")
    with pytest.raises(ConfigError) as caught:
        parse_config(EvalConfig, ["--config", str(path), "--prompt-style", "x", "--sede", "3"], PROG)
    message = str(caught.value)
    for part in (
        "unknown key 'moddel', did you mean model?",
        "c.yaml: limit 'many'",
        "--prompt-style 'x'",
        "--sede, did you mean --seed?",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--rotations", "3"], "1, 2, 4 or 'all'"),
        (["--num-samples", "4"], "--num-samples goes with --output-type cot"),
        (["--output-type", "cot", "--num-samples", "4", "--temperature", "0"], "needs --temperature above 0"),
        (["--rotations", "4", "--output-type", "cot"], "--rotations goes with --output-type multiple_choice"),
        (["--no-base"], "--no-base leaves nothing"),
        (["--report-to", "tensorbord,wandb"], "--report-to 'tensorbord,wandb': is not known"),
        (["--engine", "server"], "needs --base-url"),
        (["--base-url", "http://localhost:1/v1"], "goes with --engine server"),
        (["--num-replicas", "2"], "goes with --engine ray"),
        (["--data-parallel-size", "2", "--engine", "ray"], "give --num-replicas"),
        (["extra"], "unknown argument 'extra'"),
        (["--limit"], "expected one argument"),
        (["--config", "/no/such.yaml"], "cannot be read"),
    ],
)
def test_contradictions_are_refused(argv: list[str], part: str) -> None:
    with pytest.raises(ConfigError, match=part.replace("(", r"\(")):
        parse_config(EvalConfig, argv, PROG)


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n", "\tx: 1"])
def test_broken_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        parse_config(EvalConfig, ["--config", str(path)], PROG)
    assert "\n" not in str(caught.value) and "c.yaml" in str(caught.value)


def _other_value(cls: type[Config], name: str, value: object) -> list[str]:
    """Flags that give the field another value than the file's."""
    flag, field = "--" + name.replace("_", "-"), cls.model_fields[name]
    if isinstance(value, bool):
        return [negated_flag(name) if value else flag]
    if isinstance(value, (int, float)):
        return [flag, str(value / 2 or 0.7 if isinstance(value, float) else value + 1)]
    text = str(field.annotation)
    choices = [word for word in re.findall(r"'([^']*)'", text) if word != value and "Literal" in text]
    return [flag, choices[0] if choices else "constant" if name == "lr_scheduler_type" else "other"]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_setting_of_a_shipped_file_gives_way_to_a_flag(path: Path) -> None:
    verb = re.findall(r"kmmlu_fast\.(\w+) --config", path.read_text(encoding="utf-8"))[0]
    cls, settings = load_config_class(verb), yaml.safe_load(path.read_text(encoding="utf-8"))
    base = ["--config", str(path), *(["--data", "rows.jsonl"] if verb == "train" else [])]
    base += ["--temperature", "0.3"] if "num_samples" in settings else []  # which several samples need
    assert len(settings) >= 5
    for name in settings.keys() - {"temperature"}:
        flags = _other_value(cls, name, settings[name])
        before, after = (parse_config(cls, [*base, *more], verb) for more in ([], flags))
        assert getattr(before, name) != getattr(after, name), flags
        rest = {name}
        assert before.model_dump(exclude=rest) == after.model_dump(exclude=rest), flags
