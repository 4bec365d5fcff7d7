"""Help in Korean: every text has its translation, and the locale or --lang asks for it."""

from __future__ import annotations

import re

import pytest

from kmmlu_fast import cli, doctor
from kmmlu_fast.command import help_text
from kmmlu_fast.command.help_language import choose_help_language, load_korean_help, translate_help
from kmmlu_fast.core.console import text_width
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.settings import Config
from kmmlu_fast.exams import ExamsConfig
from kmmlu_fast.install import InstallConfig

CLASSES: dict[str, type[Config]] = {
    **{verb: help_text.load_config_class(verb) for verb in help_text.CONFIGS},
    "exams": ExamsConfig,
    "install": InstallConfig,
}
HANGUL = re.compile("[가-힣]")
DOCTOR = {doctor.SUMMARY, *doctor.FLAGS.values()}


def _texts_of(cls: type[Config]) -> list[str]:
    fields = [str(field.description) for field in cls.model_fields.values()]
    return [help_text.verb_summary(cls), *help_text.group_fields(cls), *fields]


@pytest.mark.parametrize("verb", CLASSES)
def test_every_setting_summary_and_heading_has_its_korean(verb: str) -> None:
    """A new flag, or a changed description, needs its line in kmmlu_fast/command/help_ko.json."""
    untranslated = [text for text in _texts_of(CLASSES[verb]) if translate_help(text, "ko") == text]
    assert untranslated == []


def test_the_table_holds_nothing_stale_and_only_korean() -> None:
    shown = {" ".join(text.split()) for cls in CLASSES.values() for text in _texts_of(cls)}
    shown |= {*cli.VERBS.values(), *DOCTOR}
    table = load_korean_help()
    own = {text for text in table if text not in shown}
    assert len(own) < 20, own  # usage, required, default and the like
    assert all(HANGUL.search(korean) for korean in table.values())
    flags = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
    assert [en for en, ko in table.items() if set(flags.findall(en)) != set(flags.findall(ko))] == []


@pytest.mark.parametrize(
    ("arguments", "variables", "language"),
    [
        ([], {}, "en"),
        ([], {"LANG": "ko_KR.UTF-8"}, "ko"),
        ([], {"LANG": "ko"}, "ko"),
        ([], {"LANG": "kok_IN"}, "en"),
        ([], {"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, "en"),
        ([], {"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR"}, "ko"),
        (["--help", "--lang", "en"], {"LANG": "ko_KR.UTF-8"}, "en"),
        (["--lang=ko", "-h"], {}, "ko"),
    ],
)
def test_who_decides(
    arguments: list[str], variables: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose_help_language(arguments) == language


@pytest.mark.parametrize("arguments", [["--lang", "fr"], ["--lang"], ["--lang="]])
def test_another_language_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="allowed are en, ko"):
        choose_help_language(arguments)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "words",
    [
        ["help"],
        ["help", "doctor"],
        ["help", "completion"],
        *(
            [verb, flag]
            for verb in ("eval", "train", "compare", "leakage", "exams")
            for flag in ("-h", "--help")
        ),
    ],
)
def test_korean_help_fits_the_terminal(
    words: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.dispatch_command([*words, "--lang", "ko"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("사용법: ")
    # Examples are commands, and lists of names are typed without spaces: both stay whole.
    prose = [line for line in lines if "kmmlu_fast" not in line and "_proj" not in line]
    assert [line for line in prose if text_width(line) > columns] == []


def test_the_placeholders_agree() -> None:
    for english, korean in load_korean_help().items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", korean))
