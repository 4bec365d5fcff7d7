"""What follows from what was found: obstacles, notes and commands, for machines that are not this one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kmmlu_fast.machine import gpus, model_size, packages
from kmmlu_fast.machine.diagnosis import Diagnosis, describe_adapter_support, diagnose_machine
from kmmlu_fast.machine.gpus import Gpu, GpuInventory
from kmmlu_fast.machine.host import Cpu, Machine
from kmmlu_fast.machine.packages import HubStatus, PinCheck, Toolchain

GIB = 1 << 30
NAME = "skt/A.X-4.0-Light"
ZEN3 = Machine(
    cpu=Cpu("AMD Ryzen 7 5800X", frozenset({"avx2"})),
    cores=8,
    memory_total_bytes=32 * GIB,
    memory_free_bytes=24 * GIB,
    disk_free_bytes=100 * GIB,
    architecture="x86_64",
    python=(3, 11),
)
ZEN4 = replace(ZEN3, cpu=Cpu("AMD EPYC", frozenset({"avx2", "avx512f", "avx512_bf16"})))
TOOLS = Toolchain("/usr/bin/gcc", "/usr/bin/g++", "/usr/include/python3.11/Python.h")


def cards(
    gib: float, capability: tuple[int, int], name: str, driver: str = "580.95.05", count: int = 1
) -> GpuInventory:
    total = int(gib * GIB)
    card = Gpu(
        name=name, capability=capability, total_bytes=total, free_bytes=total - GIB // 2, driver=driver
    )
    return GpuInventory(tuple(replace(card, index=n) for n in range(count)), driver)


def found(here: Machine = ZEN4, at: GpuInventory | None = None, **more: object) -> Diagnosis:
    base = Diagnosis(
        machine=here,
        cards=at or GpuInventory(),
        pins=PinCheck("cpu", 184, (), (), {}),
        installed="gpu" if at and at.cards else "cpu",
        toolchain=TOOLS,
        hub=HubStatus("https://hub", "", False),
        cuda=13,
        model_name=NAME,
        model=model_size.find_model_facts(NAME, offline=True),
        cpu_flops=4e11,
    )
    return replace(base, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gib", "capability", "name", "command"),
    [
        (8, (8, 9), "RTX 4060", f"kmmlu-fast eval --model {NAME} --engine transformers --quantization nf4"),
        (12, (8, 6), "RTX 3060", f"kmmlu-fast eval --model {NAME} --quantization fp8_per_tensor"),
        (12, (8, 9), "RTX 4070", f"kmmlu-fast eval --model {NAME} --quantization fp8_per_channel"),
        (16, (8, 9), "RTX 4080", f"kmmlu-fast eval --model {NAME} --quantization fp8_per_channel"),
        (24, (8, 9), "RTX 4090", f"kmmlu-fast eval --model {NAME}"),
        (48, (8, 9), "L40S", f"kmmlu-fast eval --model {NAME}"),
        (80, (9, 0), "H100 80GB HBM3", f"kmmlu-fast eval --model {NAME}"),
        (141, (9, 0), "H200", f"kmmlu-fast eval --model {NAME}"),
    ],
)
def test_commands_by_card(gib: float, capability: tuple[int, int], name: str, command: str) -> None:
    here = found(at=cards(gib, capability, name))
    assert (here.command, here.obstacles, here.setup) == (command, [], "")


def test_types_by_device() -> None:
    assert found(ZEN4).dtype == "bfloat16"
    assert found(ZEN3).dtype == "float32"
    assert found(at=cards(16, (7, 5), "Tesla T4")).dtype == "float16"
    assert found(at=cards(24, (8, 6), "RTX 3090")).dtype == "bfloat16"


def test_an_old_driver_stops_the_gpu_set_and_not_the_cpu_set() -> None:
    old = cards(24, (8, 9), "RTX 4090", driver="550.90.07")
    here = found(at=old)
    assert here.card is not None and here.best_option is not None  # what would work with a newer one
    assert any("driver 550.90.07 is older than CUDA 13 needs" in text for text in here.obstacles)
    on_cpu = found(at=old, installed="cpu")
    assert on_cpu.obstacles == [] and on_cpu.card is None
    assert any("550.90.07" in text and "if the card is hidden" in text for text in on_cpu.notes)
    assert on_cpu.command == f"CUDA_VISIBLE_DEVICES=-1 kmmlu-fast eval --model {NAME}"


def test_volta_is_an_obstacle_with_its_reason() -> None:
    (reason,) = found(at=cards(16, (7, 0), "Tesla V100"), installed="").obstacles
    assert "7.0" in reason and "setup.sh cpu" in reason


def test_the_gpu_set_without_a_card_cannot_run() -> None:
    (reason,) = found(installed="gpu").obstacles
    assert reason.startswith("the GPU set is installed, but no NVIDIA card answers")
    (reason,) = found(
        at=GpuInventory(problem="CUDA_VISIBLE_DEVICES='' hides every card (1)"), installed="gpu"
    ).obstacles
    assert "hides every card" in reason


def test_other_obstacles() -> None:
    assert "Python 3.14" in found(replace(ZEN4, python=(3, 14))).obstacles[0]
    assert "Linux on x86-64" in found(platform="darwin").obstacles[0]
    assert "no AVX2" in found(replace(ZEN4, cpu=Cpu("old", frozenset()))).obstacles[0]
    bare = Toolchain("/usr/bin/gcc", "", "")
    assert "Python.h" in found(at=cards(24, (8, 9), "RTX 4090"), toolchain=bare).obstacles[0]
    (small,) = found(replace(ZEN4, memory_free_bytes=4 * GIB)).obstacles
    assert "needs 17.4 GiB of the 4.0 GiB" in small


def test_what_is_to_be_installed() -> None:
    assert found(installed="").setup == "bash scripts/setup.sh cpu"
    card = cards(24, (8, 9), "RTX 4090")
    assert found(at=card, installed="").setup == "bash scripts/setup.sh gpu"
    assert found(at=card, installed="cpu").setup == "rm -rf .venv && bash scripts/setup.sh gpu"
    assert found(pins=PinCheck("cpu", 2, ("a",), (), {})).setup == "bash scripts/setup.sh cpu"


def test_several_cards_are_noted() -> None:
    assert any(
        "--data-parallel-size 2" in text for text in found(at=cards(24, (8, 9), "RTX 4090", count=2)).notes
    )


def test_adapters_by_device() -> None:
    assert describe_adapter_support(found()).startswith("written into the engine")
    assert describe_adapter_support(found(at=cards(24, (8, 9), "RTX 4090"))).startswith("served")
    assert describe_adapter_support(found(at=cards(8, (8, 9), "RTX 4060"))).startswith("on the nf4 base")


def test_minutes_are_estimates_where_there_is_something_to_estimate_from() -> None:
    here = found(at=cards(24, (8, 9), "NVIDIA GeForce RTX 4090"))
    half, eight, _, nf4 = here.memory_options
    assert here.option_minutes(half) == pytest.approx((3.534, 8.008), rel=1e-3)  # 85 and 75 % of 165
    assert here.option_minutes(eight) == pytest.approx((1.767, 4.004), rel=1e-3)
    assert here.option_minutes(nf4) is None
    server = found(at=cards(80, (9, 0), "NVIDIA H100 80GB HBM3"))
    half, eight, *_ = server.memory_options
    assert server.option_minutes(half)[0] == pytest.approx(0.783, rel=1e-2)  # 64 % of 989
    assert server.option_minutes(eight)[0] == pytest.approx(0.501, rel=1e-2)  # 50 % of 1979
    unknown = found(at=cards(24, (8, 9), "a card of tomorrow"))
    assert unknown.option_minutes(unknown.memory_options[0]) is None
    assert found(cpu_flops=0.0).option_minutes(found().memory_options[0]) is None


@pytest.mark.parametrize(
    ("name", "hub", "words"),
    [
        ("nowhere", "", "no such directory"),
        ("./nowhere", "", "no such directory"),
        ("made/up", "no answer", "the hub cannot be asked (no answer)"),
        ("made/up", "", "the hub does not show it"),
        (".", "", "no readable config.json"),
    ],
)
def test_a_model_of_which_nothing_is_known(name: str, hub: str, words: str) -> None:
    here = found(model=None, model_name=name, hub=HubStatus("", hub, False))
    assert here.memory_options == [] and here.obstacles == []
    assert any(words in text for text in here.notes)
    assert here.command == f"kmmlu-fast eval --model {name}"


def test_json_is_plain() -> None:
    document = json.loads(json.dumps(found(at=cards(16, (7, 5), "Tesla T4")).to_json()))
    assert document["dtype"] == "float16" and document["cards"][0]["capability"] == "7.5"
    assert document["ways"][0]["fits"] is False and document["can_run"] is True
    assert {"machine", "installed", "hub", "toolchain", "command", "obstacles", "notes"} <= set(document)


def test_a_look_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    never = threading.Event()
    monkeypatch.setattr(gpus, "find_gpus", lambda: never.wait(30))
    monkeypatch.setattr(packages, "check_hub", lambda: never.wait(30))
    here = diagnose_machine("demo", limit_sec=0.2)
    never.set()
    assert "gives no answer" in here.cards.problem and "no answer" in here.hub.problem
    assert here.model is not None and here.machine.cores >= 1


def test_a_split_model_is_judged_by_the_card_with_the_least_memory() -> None:
    """Two cards of 12 GB hold 14.5 GB of weights, unless another process sits on one of them."""
    both = cards(12, (8, 9), "RTX 4070", count=2)
    split = found(at=both).best_option
    assert split is not None and split.cards == 2
    taken = replace(both, cards=(both.cards[0], replace(both.cards[1], free_bytes=2 * GIB)))
    assert all(option.cards == 1 for option in found(at=taken).memory_options)


def test_what_is_compiled_at_the_first_start_is_said() -> None:
    server = cards(80, (9, 0), "NVIDIA H100 80GB HBM3")
    assert not any("compile" in text for text in found(at=server).notes)
    (note,) = (text for text in found(at=server, flashinfer="compiled").notes if "compile" in text)
    assert "nvcc" in note and "flashinfer-jit-cache" in note
    assert not any("compile" in text for text in found(flashinfer="compiled").notes), "no card computes"
    (note,) = (text for text in found(at=cards(32, (12, 0), "RTX 5090")).notes if "compile" in text)
    assert "RTX 5090" in note and "~/.nv/ComputeCache" in note


def test_a_card_that_is_not_here() -> None:
    """Neither this machine's cards nor its installed set matter: what that one needs is said."""
    there = diagnose_machine(NAME, gpu_memory_gib=24)
    assert there.assumed and there.card is not None and there.card.free_bytes == 24 * GIB
    assert there.obstacles == [] and "setup.sh gpu" in there.setup
    assert there.command == f"kmmlu-fast eval --model {NAME}"
    assert sum("is assumed" in note for note in there.notes) == 1
    assert not any("here" in note for note in there.notes)
    small = diagnose_machine(NAME, gpu_memory_gib=4)
    assert len(small.obstacles) == 1 and "needs 14.9 GiB of the 3.6 GiB" in small.obstacles[0]
    assert small.command == ""
