"""Names of schedulers, optimisers and trackers: refused while parsing, as the pinned transformers has."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError, InstallError
from kmmlu_fast.machine import trackers
from kmmlu_fast.machine.trackers import TRACKERS, require_trackers
from kmmlu_fast.training import library_names
from kmmlu_fast.training.arguments import scheduler_options
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.library_names import (
    OPTIMISER_MODULES,
    OPTIMISERS,
    SCHEDULERS,
    UNUSABLE_OPTIMISERS,
    UNUSABLE_SCHEDULERS,
)


def parse(*flags: str) -> TrainConfig:
    return parse_config(TrainConfig, ["--data", "rows.jsonl", *flags], "train")


@pytest.mark.parametrize(
    ("flag", "name", "part"),
    [
        ("--lr-scheduler-type", "cosin", "did you mean cosine"),
        ("--lr-scheduler-type", "Linear", "did you mean linear"),
        ("--lr-scheduler-type", "x", "give one of linear, cosine,"),
        ("--lr-scheduler-type", "cosine_with_min_lr", "needs settings of its own"),
        ("--lr-scheduler-type", "reduce_lr_on_plateau", "follows an evaluation loss"),
        ("--optim", "adam", "did you mean adamw_8bit or adamw_torch"),
        ("--optim", "paged_adamw", "did you mean paged_adamw_8bit"),
        ("--optim", "galore_adamw", "all weights, not a LoRA"),
        ("--report-to", "tensorbord", "did you mean tensorboard"),
        ("--report-to", "none,wandb", "none stands alone"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_while_parsing(flag: str, name: str, part: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(flag, name)
    assert part in str(refusal.value) and flag in str(refusal.value)


def test_names_that_can_be_used_pass() -> None:
    config = parse(
        "--lr-scheduler-type", "cosine", "--optim", "lion_8bit", "--report-to", "tensorboard,wandb"
    )
    assert (config.lr_scheduler_type, config.optim) == ("cosine", "lion_8bit")
    assert config.report_to == ["tensorboard", "wandb"]
    assert parse("--report-to", "none").report_to == []


def test_parsing_imports_no_heavy_library() -> None:
    code = (
        "import sys; from kmmlu_fast.command.flags import parse_config;"
        "from kmmlu_fast.training.config import TrainConfig;"
        "parse_config(TrainConfig, ['--data', 'x', '--optim', 'sgd'], 'train');"
        "print(sorted({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_a_package_that_an_optimiser_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_names, "is_module_installed", lambda module: False)
    with pytest.raises(ConfigError, match="needs the package schedulefree, which is not installed"):
        parse("--optim", "schedule_free_adamw")
    monkeypatch.setattr(library_names, "is_module_installed", lambda module: True)
    assert parse("--optim", "schedule_free_adamw").optim == "schedule_free_adamw"


def test_a_tracker_that_is_not_installed_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trackers, "is_module_installed", lambda module: module == "mlflow")
    require_trackers(["mlflow", "all", "kubeflow"])
    with pytest.raises(InstallError, match=r"--report-to dagshub: needs dagshub, .* pip install dagshub"):
        require_trackers(["dagshub"])
    with pytest.raises(InstallError, match=r"needs tensorboard, .*kmmlu-fast\[trackers\]"):
        require_trackers(["tensorboard"])


needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


@needs_transformers
def test_the_lists_are_those_of_the_installed_transformers() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.training_args import OptimizerNames, SchedulerType

    assert {kind.value for kind in SchedulerType} == {*SCHEDULERS, *UNUSABLE_SCHEDULERS}
    assert {kind.value for kind in OptimizerNames} == {*OPTIMISERS, *OPTIMISER_MODULES, *UNUSABLE_OPTIMISERS}
    assert set(INTEGRATION_TO_CALLBACK) == set(TRACKERS)


@needs_transformers
def test_every_scheduler_on_the_list_makes_steps_and_the_others_do_not() -> None:
    import torch
    from transformers.optimization import get_scheduler

    def make_steps(name: str) -> None:
        optimiser = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
        scheduler = get_scheduler(
            name,
            optimizer=optimiser,
            num_warmup_steps=1,
            num_training_steps=4,
            scheduler_specific_kwargs=scheduler_options(name, 4),
        )
        for _ in range(3):
            optimiser.step()
            scheduler.step()

    for name in SCHEDULERS:
        make_steps(name)
    for name in UNUSABLE_SCHEDULERS:
        with pytest.raises((ValueError, TypeError)):
            make_steps(name)
