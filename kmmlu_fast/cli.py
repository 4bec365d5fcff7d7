"""``kmmlu-fast VERB``: all entry points under one name. Knows only the modules of the verbs."""

from __future__ import annotations

import difflib
import importlib
import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.help_language import choose_help_language, translate_help
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError

VERBS = {
    "eval": "evaluate a base model and its adapters",
    "exams": "list exams, or check one of your own",
    "sample": "draw clean fine-tuning data from weak subjects",
    "leakage": "find test questions in a training file",
    "train": "train a QLoRA adapter",
    "improve": "find the recipe: train many, score together, confirm one",
    "compare": "compare runs question by question",
    "report": "write an HTML report, exports and figures",
    "export": "export an adapter: merged, GGUF, or a GGUF adapter",
    "check": "check that what you ship is what you measured",
    "push": "publish a model with its numbers and a text-free bundle",
    "verify": "check published numbers against the model",
    "plan": "how many questions, minutes and seeds show a difference",
    "serve-engine": "keep an engine warm: the next eval answers within seconds",
    "doctor": "show what this computer has and what will work on it",
    "install": "install the tested package versions into this environment",
}
_EXTRA = {
    "help": "describe a verb and its flags: kmmlu-fast help eval",
    "completion": "print tab completion for bash, zsh or fish",
}
_WORKFLOW = "Typical order: doctor, eval, sample, train, eval --adapter, compare, report."


def dispatch_command(argv: list[str] | None = None) -> int:
    """Pass the rest of the command line to the verb's own entry point."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"] and len(arguments) > 1 and not arguments[1].startswith("-"):
        arguments = [arguments[1], "--help", *arguments[2:]]
    if not arguments or arguments[0] not in VERBS:
        return run_main(lambda: _run_own_command(arguments))
    try:
        name = arguments[0].replace("-", "_")
        module = importlib.import_module(f"kmmlu_fast.{name}")
        return int(getattr(module, f"run_{name}_command")(arguments[1:]))
    except SystemExit as stop:  # --help
        return int(stop.code or 0)


def _run_own_command(arguments: list[str]) -> int:
    """What is no verb: the overview, the version, tab completion. ConfigError for anything else."""
    verb = arguments[0] if arguments else "help"
    if verb in ("-h", "--help", "help") or verb.partition("=")[0] == "--lang":
        print(_usage_text(choose_help_language(arguments)))
        return 0
    if verb in ("--version", "-V", "version"):
        from kmmlu_fast.core.version import __version__

        print(f"kmmlu-fast {__version__}")
        return 0
    if verb == "completion":
        return _print_completion(arguments[1:])
    near = difflib.get_close_matches(verb, [*VERBS, *_EXTRA], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"unknown verb {verb!r}: {hint}(allowed are {', '.join(VERBS)})")


def _usage_text(lang: str) -> str:
    usage = translate_help("usage: kmmlu-fast VERB ...", lang)
    rows = [f"  {verb:<14}{translate_help(text, lang)}" for verb, text in {**VERBS, **_EXTRA}.items()]
    return "\n".join([usage, "", *rows, "", translate_help(_WORKFLOW, lang)])


def _print_completion(arguments: list[str]) -> int:
    from kmmlu_fast.command.help_text import completion_script, shell_name

    if "--help" in arguments or "-h" in arguments:
        lang = choose_help_language(arguments)
        print(translate_help("usage: kmmlu-fast completion [bash|zsh|fish]", lang))
        print(f"{translate_help('examples', lang)}:\n  source <(kmmlu-fast completion bash)")
        return 0
    shell = arguments[0] if arguments else shell_name()
    if shell not in ("bash", "zsh", "fish"):
        raise ConfigError(f"completion {shell!r}: allowed are bash, zsh, fish")
    print(completion_script(shell, [*VERBS, *_EXTRA]))
    return 0


def run_cli() -> int:
    """Entry point of the installed command. The verb runs in a watched process, so a crash is explained."""
    return run_with_crash_guard(dispatch_command)
