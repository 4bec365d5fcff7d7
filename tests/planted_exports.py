"""25 faults and 13 good exports of each of two tiny architectures, for the release gate's tests and table.

    PYTHONPATH=tests python tests/planted_exports.py      prints fault -> sentence, and the questions it took

In: a folder, an architecture (qwen2: own head, no BOS; gemma3: tied head, BOS). Out: ``ExportBench``, and
makers of artefacts by name. Knows nothing of assertions.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_faults as plant
from tiny import make_tiny_adapter
from tiny_gguf import make_gguf_ready_model, write_tiny_converter

from kmmlu_fast.shipping.answers import artefact_engine, ask_letters
from kmmlu_fast.shipping.artefact import open_artefact
from kmmlu_fast.shipping.config import CheckConfig, ExportConfig
from kmmlu_fast.shipping.diagnosis import Measurements, diagnose
from kmmlu_fast.shipping.export import export_adapter
from kmmlu_fast.shipping.gate import CheckedArtefact, ReleaseGate
from kmmlu_fast.shipping.letter_shifts import compare_letters

ARCHITECTURES = ("qwen2", "gemma3")
QUESTIONS = 40
_FEW = (2, 5, 10, 20, 40)  # questions at which letters alone are tried


class ExportBench:
    """A base, an adapter, its exports, and a gate that has asked them."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.folder, self.architecture = folder, architecture
        self.base = make_gguf_ready_model(folder / "base", architecture)
        self.adapter = make_tiny_adapter(self.base, folder / "lora", scale=0.5)
        (self.adapter / "README.md").unlink(missing_ok=True)
        common: dict[str, Any] = {"adapter": [str(self.adapter)], "name": "tiny"}
        self.merged = export_adapter(ExportConfig(**common, out=folder / "merged")).path
        converter = write_tiny_converter(folder / "converter")
        kinds = ["bf16", "f16", "f32", "q8_0", "q4_k_m"]
        export = ExportConfig(**common, to="gguf", quantize=kinds, out=folder / "gguf", converter=converter)
        export_adapter(export)
        self.gguf = folder / "gguf" / "tiny-bf16.gguf"
        self.gate = open_gate(self.adapter)
        self._places = 0

    def place(self, name: str = "bad") -> Path:
        self._places += 1
        return self.folder / f"{name}-{self._places}"

    def check(self, path: Path, gate: ReleaseGate | None = None) -> CheckedArtefact:
        return (gate or self.gate).check(open_artefact(str(path), None))

    @functools.cached_property
    def gentle(self) -> tuple[Path, Path, ReleaseGate]:
        """An adapter that moves letters little, its merge in float32 and its gate."""
        adapter = make_tiny_adapter(self.base, self.folder / "gentle", scale=0.1)
        export = ExportConfig(adapter=[str(adapter)], dtype="float32", out=self.folder / "gentle-merged")
        return adapter, export_adapter(export).path, open_gate(adapter)

    def check_fault(self, name: str) -> tuple[str, CheckedArtefact]:
        """The cause that should be named, and what was."""
        expected, make = faults_of(self.architecture)[name]
        path = make(self)
        gate = open_gate(path.parent / "adapter") if expected == "pissa" else None
        return expected, self.check(path, gate)


def open_gate(adapter: Path) -> ReleaseGate:
    return ReleaseGate(CheckConfig(artefacts=[str(adapter), "-"], questions=QUESTIONS, generations=2))


def other_base(bench: ExportBench, noise: float) -> Path:
    """Another revision of the base: every weight moved a little."""
    import torch

    def edit(tensors: plant.Tensors) -> None:
        generator = torch.Generator().manual_seed(5)
        for name, tensor in tensors.items():
            moved = torch.randn(tensor.shape, generator=generator) * noise * tensor.float().std()
            tensors[name] = (tensor.float() + moved).to(tensor.dtype)

    return plant.edit_tensors(bench.merged, bench.place(), edit)


def coarse_merge(bench: ExportBench) -> Path:
    """Linear weights rounded as nf4 rounds them, then merged: what merging into a 4-bit base gives."""
    import torch

    changes = plant.adapter_changes(bench.adapter)

    def edit(tensors: plant.Tensors) -> None:
        for name, change in changes.items():
            base = tensors[name].float() - change
            step = base.abs().amax(1, keepdim=True) / 7
            rounded = torch.round(base / step) * step
            tensors[name] = (rounded + change).to(tensors[name].dtype)

    return plant.edit_tensors(bench.merged, bench.place(), edit)


def own_head(bench: ExportBench) -> Path:
    """An output layer of its own, trained further, beside the embedding that the base ties it to."""
    import torch

    def edit(tensors: plant.Tensors) -> None:
        name = "lm_head.weight" if "lm_head.weight" in tensors else "model.embed_tokens.weight"
        source = tensors[name].float()
        noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(3))
        tensors["lm_head.weight"] = (source + 0.3 * source.std() * noise).bfloat16()

    folder = plant.edit_tensors(bench.merged, bench.place(), edit)
    return plant.edit_json(folder, "config.json", tie_word_embeddings=False)


def padded_vocabulary(bench: ExportBench) -> Path:
    import torch

    def edit(tensors: plant.Tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in tensors:
                rows = torch.zeros(24, tensors[name].shape[1], dtype=tensors[name].dtype)
                tensors[name] = torch.cat([tensors[name], rows])

    folder = plant.edit_tensors(bench.merged, bench.place(), edit)
    return plant.edit_json(folder, "config.json", vocab_size=512 + 24)


def with_template(bench: ExportBench, template: str | None) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    if template is None:
        (folder / "chat_template.jinja").unlink()
    else:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def foreign_template(bench: ExportBench) -> Path:
    template = "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}### assistant:"
    return with_template(bench, template)


def other_switch(bench: ExportBench) -> Path:
    template = (bench.merged / "chat_template.jinja").read_text("utf-8").replace("is false", "is true")
    return with_template(bench, template)


def other_theta(bench: ExportBench) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    rope = json.loads((folder / "config.json").read_text("utf-8"))["rope_parameters"]
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if "rope_theta" in part:
            part["rope_theta"] *= 4
    return plant.edit_json(folder, "config.json", rope_parameters=rope)


def edit_metadata(bench: ExportBench, changes: dict[str, Any], drop: tuple[str, ...] = ()) -> Path:
    return plant.edit_gguf(bench.gguf, bench.place().with_suffix(".gguf"), changes, drop)


def swap_tokens(bench: ExportBench) -> Path:
    """Two entries of the vocabulary change places."""

    def edit(state: dict[str, Any]) -> None:
        vocabulary = state["model"]["vocab"]
        one, two = ("?", "A") if "?" in vocabulary else ("A", "B")
        vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]

    return edit_tokenizer(bench, edit)


def edit_tokenizer(bench: ExportBench, edit: Callable[[dict[str, Any]], None]) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text("utf-8"))
    edit(state)
    path.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    return folder


def double_bos(state: dict[str, Any]) -> None:
    single = state["post_processor"]["single"]
    single.insert(0, single[0])


def add_token(bench: ExportBench) -> Path:
    from transformers import AutoTokenizer

    folder = plant.copy_model(bench.merged, bench.place())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["옳은 것은"])
    tokenizer.save_pretrained(folder)
    return folder


def other_attention(bench: ExportBench) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    if bench.architecture == "gemma3":
        return plant.edit_json(folder, "config.json", layer_types=["full_attention"] * 2)
    return plant.edit_json(folder, "config.json", rms_norm_eps=1e-3)


def other_stop(bench: ExportBench) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    return plant.edit_json(folder, "generation_config.json", eos_token_id=9)


def rope_metadata(bench: ExportBench) -> Path:
    return edit_metadata(bench, {f"{bench.architecture}.rope.freq_base": 4000.0})


def pissa_on_published_base(bench: ExportBench) -> Path:
    """W + s·B·A of an adapter that belongs to W less its principal part."""
    folder = bench.place()
    folder.mkdir()
    adapter = plant.copy_model(bench.adapter, folder / "adapter")
    plant.edit_json(adapter, "adapter_config.json", init_lora_weights="pissa")
    return plant.copy_model(bench.merged, folder / "merged")


def coarse_gguf(bench: ExportBench) -> Path:
    """Q4_0 made carelessly: nine values a block in place of sixteen, the embedding too."""
    return plant.requantize_gguf(bench.gguf, bench.place().with_suffix(".gguf"), levels=9)


def scaled(factor: float, only: str = "") -> Callable[[ExportBench], Path]:
    return lambda bench: plant.rescale(bench.merged, bench.adapter, bench.place(), factor, only)


Fault = tuple[str, Callable[[ExportBench], Path]]
_SHARED: dict[str, Fault] = {
    "not applied": ("not applied", scaled(0.0)),
    "twice": ("twice", scaled(2.0)),
    "half the scale": ("scale", scaled(0.5)),
    "1.3 times the scale": ("scale", scaled(1.3)),
    "one projection missing": ("missing part", scaled(0.0, "layers.1.self_attn.o_proj")),
    "one layer missing": ("missing part", scaled(0.0, "layers.0.")),
    "MLP missing": ("missing part", scaled(0.0, ".mlp.")),
    "another base": ("base", lambda bench: other_base(bench, 0.3)),
    "a near revision": ("base", lambda bench: other_base(bench, 0.03)),
    "PiSSA on the published base": ("pissa", pissa_on_published_base),
    "merged into 4 bit": ("4 bit", coarse_merge),
    "own head": ("tied head", own_head),
    "vocabulary padded": ("vocabulary", padded_vocabulary),
    "template lost": ("template", lambda bench: with_template(bench, None)),
    "another template": ("template", foreign_template),
    "RoPE base": ("settings", other_theta),
    "attention kind or norm": ("settings", other_attention),
    "tokens swapped": ("tokenizer", swap_tokens),
    "token added": ("tokens", add_token),
    "stop token of another kind": ("stop", other_stop),
    "GGUF: template lost": (
        "template",
        lambda bench: edit_metadata(bench, {}, ("tokenizer.chat_template",)),
    ),
    "GGUF: RoPE base": ("settings", rope_metadata),
    "GGUF: quantised carelessly": ("quantisation", coarse_gguf),
}
_OWN: dict[str, dict[str, Fault]] = {
    "gemma3": {
        "GGUF: BOS lost": (
            "bos",
            lambda bench: edit_metadata(bench, {"tokenizer.ggml.add_bos_token": False}),
        ),
        "BOS doubled": ("bos", lambda bench: edit_tokenizer(bench, double_bos)),
    },
    "qwen2": {
        "GGUF: BOS added": (
            "bos",
            lambda bench: edit_metadata(
                bench, {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 0}
            ),
        ),
        "thinking switch": ("template", other_switch),
    },
}


def faults_of(architecture: str) -> dict[str, Fault]:
    """Every fault of an architecture: the cause that must be named, and its maker."""
    return {**_SHARED, **_OWN[architecture]}


def saved_again(bench: ExportBench, dtype: str | None = None) -> Path:
    """Loaded and saved by transformers, in shards; ``dtype``: of the weights, as loaded if None."""
    from transformers import AutoModelForCausalLM

    target = plant.copy_model(bench.merged, bench.place("good"))
    (target / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(bench.merged, dtype=dtype)
    model.save_pretrained(target, max_shard_size="60KB")
    return target


def saved_tokenizer(bench: ExportBench) -> Path:
    from transformers import AutoTokenizer

    target = plant.copy_model(bench.merged, bench.place("good"))
    AutoTokenizer.from_pretrained(bench.merged).save_pretrained(target)
    return target


def template_in_settings(bench: ExportBench) -> Path:
    """The chat template in ``tokenizer_config.json``, as older libraries write it."""
    target = plant.copy_model(bench.merged, bench.place("good"))
    template = (target / "chat_template.jinja").read_text("utf-8")
    (target / "chat_template.jinja").unlink()
    return plant.edit_json(target, "tokenizer_config.json", chat_template=template)


def exported_in_float32(bench: ExportBench) -> Path:
    export = ExportConfig(adapter=[str(bench.adapter)], dtype="float32", out=bench.place("good"))
    return export_adapter(export).path


def renamed_gguf(bench: ExportBench) -> Path:
    target = bench.place("model").with_suffix(".gguf")
    shutil.copyfile(bench.gguf, target)
    return target


def exported_gguf(kind: str) -> Callable[[ExportBench], Path]:
    return lambda bench: bench.folder / "gguf" / f"tiny-{kind}.gguf"


GOOD: dict[str, Callable[[ExportBench], Path]] = {
    "merged": lambda bench: bench.merged,
    "merged --dtype float32": exported_in_float32,
    "saved as float32, in shards": lambda bench: saved_again(bench, "float32"),
    "saved as float16, in shards": lambda bench: saved_again(bench, "float16"),
    "saved again, in shards": saved_again,
    "renamed": lambda bench: plant.copy_model(bench.merged, bench.place("good")),
    "tokenizer saved again": saved_tokenizer,
    "template in tokenizer_config.json": template_in_settings,
    "GGUF BF16": exported_gguf("bf16"),
    "GGUF F16": exported_gguf("f16"),
    "GGUF F32": exported_gguf("f32"),
    "GGUF Q8_0": exported_gguf("q8_0"),
    "GGUF renamed": renamed_gguf,
}


SCALES = {"not applied": 0.0, "twice": 2.0, "half the scale": 0.5, "1.3 times the scale": 1.3}


def letters_alone(bench: ExportBench, name: str) -> int | None:
    """The fewest questions from which letters alone name a fault of SCALES, as of a server whose files cannot
    be read; None if they do not. Of an adapter that moves letters a little, as training does: where it moves
    them far, twice the change is not twice the shift."""
    adapter, merged, gate = bench.gentle
    path = plant.rescale(merged, adapter, bench.place(), SCALES[name])
    reference, _ = gate._reference()
    with artefact_engine(open_artefact(str(path), None), reference.prompts.context_tokens) as engine:
        rows = ask_letters(engine, reference.prompts, QUESTIONS)
    named: list[bool] = []
    for count in _FEW:
        letters = compare_letters(
            reference.base[:count], reference.served[:count], rows[:count], reference.prompts.keys[:count]
        )
        causes = diagnose(Measurements(quantisation=None, letters=letters), 0.5).causes
        named.append([cause.name for cause in causes] == [_SHARED[name][0]])
    right = [count for place, count in enumerate(_FEW) if all(named[place:])]
    return right[0] if right else None


def print_table(architectures: tuple[str, ...] = ARCHITECTURES) -> int:
    """The table; returns how many rows are wrong."""
    wrong = 0
    for architecture in architectures:
        with tempfile.TemporaryDirectory() as folder:
            bench = ExportBench(Path(folder), architecture)
            faults = faults_of(architecture)
            print(f"\n{architecture}: {len(faults)} faults")
            print("| fault | named | letters asked | letters alone | says |\n|---|---|---|---|---|")
            for name in faults:
                expected, checked = bench.check_fault(name)
                named = [cause.name for cause in checked.diagnosis.causes]
                asked = checked.measured.letters.questions if checked.measured.letters else 0
                alone = letters_alone(bench, name) if name in SCALES else "-"
                wrong += named != [expected]
                print(
                    f"| {name} | {', '.join(named)} | {asked} | {alone} | {checked.diagnosis.sentence} |",
                    flush=True,
                )
            print(f"\n{architecture}: {len(GOOD)} good exports\n| export | says |\n|---|---|")
            for name, make in GOOD.items():
                checked = bench.check(make(bench))
                wrong += not checked.diagnosis.is_safe
                print(f"| {name} | {checked.diagnosis.sentence} |", flush=True)
    print(f"\n{wrong} rows are wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if print_table(tuple(sys.argv[1:]) or ARCHITECTURES) else 0)
