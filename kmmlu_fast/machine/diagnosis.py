"""What this computer can do for a model: all checks of ``machine`` at once, and what follows from them.

In: a model's name. Out: ``Diagnosis``: hardware and software, obstacles, which ways of evaluating fit, and
the command. ``diagnose_machine`` runs the checks in threads, three seconds at most; everything else is pure.
Downloads only a few kB of the hub's metadata. Knows nothing of training or of how results are shown.
"""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from kmmlu_fast.machine import gpus, host, memory_fit, model_size, packages, throughput_estimate
from kmmlu_fast.machine.gpus import Gpu, GpuInventory
from kmmlu_fast.machine.host import Machine
from kmmlu_fast.machine.memory_fit import MemoryOption
from kmmlu_fast.machine.model_size import ModelFacts
from kmmlu_fast.machine.packages import HubStatus, PinCheck, Toolchain, expand_home
from kmmlu_fast.machine.setup_commands import setup_command

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
_LIMIT_SEC = 3.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Results of the checks. ``cpu_flops``: this CPU's measured matrix-product rate (0.0: not measured)."""

    machine: Machine
    cards: GpuInventory
    pins: PinCheck
    installed: str  # gpu, cpu, or nothing
    toolchain: Toolchain
    hub: HubStatus
    cuda: int  # major version of the pinned CUDA
    model_name: str
    model: ModelFacts | None
    cpu_flops: float = 0.0
    flashinfer: str = ""  # where its kernels come from: ``packages.flashinfer_state``
    platform: str = "linux"
    seconds: float = 0.0
    assumed: bool = False  # whether the card is not here (``gpus.assume_gpu``)

    @property
    def card_problem(self) -> str:
        """Why the cards here cannot be used; empty if they can, or if there are none."""
        if not self.cards.cards:
            return self.cards.problem
        card = self.cards.cards[0]
        return memory_fit.unsupported_gpu_reason(card.capability, card.name) or packages.driver_problem(
            self.cards.driver, self.cuda
        )

    @property
    def card(self) -> Gpu | None:
        """The card that computes; None if the CPU does.

        A card whose driver is too old counts (that can be fixed), unless the CPU set is installed.
        """
        if not self.cards.cards:
            return None
        card = self.cards.cards[0]
        fixable = self.installed != "cpu" and not memory_fit.unsupported_gpu_reason(card.capability)
        return card if fixable or not self.card_problem else None

    @property
    def dtype(self) -> str:
        """The 16- or 32-bit type that ``--dtype auto`` stands for here."""
        if self.card is None:
            return host.best_cpu_dtype(self.machine.cpu.flags)
        return "bfloat16" if self.card.capability >= memory_fit.BFLOAT16 else "float16"

    @property
    def memory_options(self) -> list[MemoryOption]:
        """The ways of evaluating the model here, the most faithful first; [] if its size is unknown."""
        if self.model is None:
            return []
        if self.card is None:
            return memory_fit.cpu_memory_options(self.model, self.dtype, self.machine.memory_free_bytes)
        same = [card for card in self.cards.cards if card.name == self.card.name]
        total, free = self.card.total_bytes, self.card.free_bytes
        least = memory_fit.engine_memory_budget(
            min(card.total_bytes for card in same), min(card.free_bytes for card in same)
        )
        return memory_fit.gpu_memory_options(
            self.model, self.card.capability, total, free, len(same), split_bytes=least
        )

    @property
    def best_option(self) -> MemoryOption | None:
        """The most faithful way that fits, of exactly the requested model."""
        fitting = (option for option in self.memory_options if option.fits and not option.another_model)
        return next(fitting, None)

    def option_minutes(self, option: MemoryOption) -> tuple[float, float] | None:
        """The estimated minutes of a full zero-shot pass; None if there is nothing to estimate from."""
        if self.model is None or option.name == "nf4":
            return None
        if self.card is None:
            return throughput_estimate.estimate_pass_minutes(self.model, self.cpu_flops)
        fp8 = option.name == "fp8_per_channel"
        rate = option.cards * throughput_estimate.peak_flops(self.card.name, fp8)
        share = throughput_estimate.reached_share(self.card.name, fp8)
        return throughput_estimate.estimate_pass_minutes(self.model, rate, share)

    @property
    def command(self) -> str:
        """The command for an evaluation; empty if no way of evaluating exactly this model fits."""
        option = self.best_option
        if self.model is not None and option is None:
            return ""
        words = ["kmmlu-fast", "eval", "--model", self.model_name, *(option.flags if option else ())]
        return f"{self.hide_gpus_prefix}{shlex.join(words)}"

    @property
    def hide_gpus_prefix(self) -> str:
        """The prefix for a command that computes on the CPU despite a card; else empty."""
        return "CUDA_VISIBLE_DEVICES=-1 " if self.cards.cards and self.card is None else ""

    @property
    def setup(self) -> str:
        """The command that installs what is missing; empty if the right set is complete."""
        wanted = "gpu" if self.card else "cpu"
        if self.installed == wanted and self.pins.complete:
            return ""
        return setup_command(wanted, replace=bool(self.installed) and self.installed != wanted)

    @property
    def obstacles(self) -> list[str]:
        """Why nothing can run here; [] if something can."""
        here, reasons = self.machine, []
        if self.assumed:
            return self._memory_obstacles()
        if self.platform != "linux" or here.architecture not in ("x86_64", "AMD64"):
            reasons.append(
                f"the pinned sets are for Linux on x86-64, this is {self.platform} on {here.architecture}"
            )
        if not OLDEST_PYTHON <= here.python <= NEWEST_PYTHON:
            reasons.append(f"Python {_dotted_version(here.python)}: 3.11 to 3.13 are needed")
        if self.card_problem and self.cards.cards and self.installed != "cpu":
            reasons.append(self.card_problem)
        if self.installed == "gpu" and not self.cards.cards:
            why = self.cards.problem or "no NVIDIA card answers"
            instead = setup_command("cpu", replace=True)
            reasons.append(f"the GPU set is installed, but {why}; for the CPU: {instead}")
        if self.card is None:
            if "avx2" not in here.cpu.flags:
                reasons.append("the CPU has no AVX2, which vLLM's CPU build needs, and no card can be used")
        elif not self.toolchain.complete and self.installed == "gpu":
            reasons.append(toolchain_problem(self.toolchain, here.python))
        return [*reasons, *self._memory_obstacles()]

    def _memory_obstacles(self) -> list[str]:
        options = self.memory_options
        if self.model is None or not options or any(option.fits for option in options):
            return []
        return [memory_fit.memory_advice(options, self.model)]

    @property
    def notes(self) -> list[str]:
        """What works, but not as well as it could, or not yet."""
        notes = []
        if self.card_problem and not any(self.card_problem in text for text in self.obstacles):
            where = " if the card is hidden" if self.hide_gpus_prefix else ""
            notes.append(f"{self.card_problem}; the CPU computes{where}")
        if len(self.cards.cards) > 1 and self.card:
            notes.append(
                f"{len(self.cards.cards)} cards: --data-parallel-size {len(self.cards.cards)} uses them all"
            )
        if self.assumed:
            generation = _dotted_version(gpus.ASSUMED_CAPABILITY)
            notes.append(
                f"a card of compute capability {generation} (RTX 30, A40) is assumed: from 8.9 (RTX 40, L4,"
                " H100) fp8_per_channel works too; minutes depend on the card's name"
            )
        elif self.card and self.installed == "cpu":
            notes.append("the CPU set is installed, and a card is here: install the GPU set in its place")
        if self.card and not self.assumed and not self.toolchain.complete and self.installed != "gpu":
            notes.append(toolchain_problem(self.toolchain, self.machine.python))
        if self.card is None and not (self.toolchain.cxx_compiler and self.toolchain.python_header):
            notes.append(
                "no g++ or Python.h: vLLM's layer norms run unfused on the CPU, slower but equally correct"
            )
        if self.card is None and self.dtype == "float32" and "avx2" in self.machine.cpu.flags:
            notes.append("this CPU has no bfloat16: --dtype auto computes in float32")
        notes += self._kernel_notes()
        if self.model is None:
            why = explain_unknown_model(self.model_name, self.hub)
            notes.append(f"{self.model_name}: {why}; what fits is not known")
        else:
            advice = memory_fit.memory_advice(self.memory_options, self.model)
            if advice and advice not in self.obstacles:
                notes.append(advice)
        return notes

    def _kernel_notes(self) -> list[str]:
        """What is compiled at the card's first start, or would be."""
        notes = []
        if self.card and self.flashinfer == "compiled":
            notes.append(
                "FlashInfer would compile its kernels with nvcc at the first start, for minutes: vLLM's own"
                " kernels are used (for FlashInfer's, install flashinfer-cubin and flashinfer-jit-cache of"
                " its version)"
            )
        if self.card and (note := memory_fit.first_start_note(self.card.capability, self.card.name)):
            notes.append(note)
        return notes

    def to_json(self) -> dict[str, Any]:
        """All results in plain types."""
        cpu = {
            "name": self.machine.cpu.name,
            "kind": host.cpu_kind(self.machine.cpu.flags),
            "flags": sorted(self.machine.cpu.flags),
        }
        return {
            "machine": {**asdict(self.machine), "cpu": cpu, "python": _dotted_version(self.machine.python)},
            "cards": [
                {**asdict(card), "capability": _dotted_version(card.capability)} for card in self.cards.cards
            ],
            "driver": self.cards.driver,
            "card_problem": self.card_problem,
            "pinned_cuda": self.cuda,
            "toolchain": asdict(self.toolchain),
            "flashinfer": self.flashinfer,
            "hub": asdict(self.hub),
            "installed": {"set": self.installed, **asdict(self.pins)},
            "model_name": self.model_name,
            "model": asdict(self.model) if self.model else None,
            "device": self.card.name if self.card else "CPU",
            "assumed": self.assumed,
            "dtype": self.dtype,
            "ways": [
                {**option.to_json(), "estimated_minutes": self.option_minutes(option)}
                for option in self.memory_options
            ],
            "adapters": describe_adapter_support(self),
            "command": self.command,
            "setup": self.setup,
            "can_run": not self.obstacles,
            "obstacles": self.obstacles,
            "notes": self.notes,
            "seconds": round(self.seconds, 2),
        }


def describe_adapter_support(diagnosis: Diagnosis) -> str:
    """How LoRA adapters are evaluated here, in words."""
    if diagnosis.card is None:
        return (
            "written into the engine's weights, one by one (swap); adapters other than plain LoRA are merged"
            " with PEFT"
        )
    if diagnosis.best_option is not None and diagnosis.best_option.name == "nf4":
        return "on the nf4 base in process, with PEFT"
    return "served from the base's engine, any number of them"


def explain_unknown_model(name: str, hub: HubStatus) -> str:
    """Why a model's size is unknown."""
    if expand_home(name).is_dir():
        return "the directory has no readable config.json"
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        return "no such directory, and not a hub id such as skt/A.X-4.0-Light"
    if hub.problem:
        return f"not in the hub's cache, and the hub cannot be asked ({hub.problem})"
    return "not in the hub's cache, and the hub does not show it (a wrong name, or a private repository)"


def toolchain_problem(toolchain: Toolchain, python: tuple[int, int]) -> str:
    """What Triton lacks, and how to install it."""
    package = f"python{_dotted_version(python)}-dev"
    return (
        f"{toolchain.missing} not found: Triton compiles its kernels at run time; install them "
        f"(Debian and Ubuntu: apt-get install gcc {package})"
    )


def diagnose_machine(
    model_name: str, limit_sec: float = _LIMIT_SEC, *, gpu_memory_gib: float | None = None
) -> Diagnosis:
    """Run all checks at once. Whatever does not answer in time counts as absent, with that as the problem.

    ``gpu_memory_gib``: answer for a card with this much memory, which is not here, and a new environment.
    """
    began = time.perf_counter()
    here = host.detect_machine()
    kind = packages.installed_kind()
    silent = GpuInventory(problem=f"the NVIDIA driver gives no answer within {limit_sec:.0f} s")
    no_hub = HubStatus("", f"no answer within {limit_sec:.0f} s", packages.has_hub_token())
    unread: ModelFacts | None = None
    if gpu_memory_gib is not None:
        kind, silent = "", GpuInventory((gpus.assume_gpu(gpu_memory_gib),))
    cards = start_probe(gpus.find_gpus if gpu_memory_gib is None else lambda: silent, silent)
    hub = start_probe(packages.check_hub, no_hub)
    model = start_probe(lambda: model_size.find_model_facts(model_name), unread)
    pins = start_probe(lambda: packages.check_pins(kind or "cpu"), PinCheck(kind, 0, (), (), {}))
    until = began + limit_sec
    diagnosis = Diagnosis(
        machine=here,
        cards=cards(until),
        pins=pins(until),
        installed=kind,
        toolchain=packages.find_toolchain(),
        hub=hub(until),
        cuda=packages.pinned_cuda(),
        model_name=model_name,
        model=model(until),
        flashinfer="" if gpu_memory_gib else packages.flashinfer_state(),
        platform=sys.platform,
        assumed=gpu_memory_gib is not None,
    )
    if diagnosis.card is None and diagnosis.model is not None:
        flops = throughput_estimate.measure_cpu_flops(here.cpu.flags)
        diagnosis = replace(diagnosis, cpu_flops=flops)
    return replace(diagnosis, seconds=time.perf_counter() - began)


def start_probe(probe: Callable[[], T], otherwise: T) -> Callable[[float], T]:
    """Start a check in a daemon thread; the returned function waits until a deadline (time.perf_counter)."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(probe()), daemon=True)
    thread.start()

    def wait(until: float) -> T:
        thread.join(max(0.0, until - time.perf_counter()))
        return results[0] if results else otherwise

    return wait


def _dotted_version(pair: Sequence[int]) -> str:
    return ".".join(str(number) for number in pair)
