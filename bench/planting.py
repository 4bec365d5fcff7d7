"""Invented adapters for a benchmark: some that change little, some that know a share of the answers, some
that say A a little less often and change a few answers besides.

In: a model, a dataset, how many. Out: PEFT adapters in a folder, and a JSON line that names them. The first
ones are random matrices so small that few answers change. The others change the last layer's down projection
alone: by least squares, its inputs at the last token of the known questions map to the direction that raises
the key's letter. Better on this dataset, and nowhere else: it is a test instrument. Knows nothing of
evaluation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from bench.adapters import write_adapter
from bench.common import BenchConfig
from bench.flops import shape_of
from bench.throughput import ThroughputConfig, prepare
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.machine.host import best_cpu_dtype
from kmmlu_fast.models import model as models

NULL_SCALE = 0.006  # of lora_B's entries: about one answer in ten becomes right or wrong
_RANK = len(LETTERS)
_BATCH = 12


class PlantingConfig(BenchConfig):
    """python -m bench.planting: internal to bench.judge."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    limit: PositiveInt | None = Field(None, description="questions a subject that the better ones may know")
    nulls: NonNegativeInt = Field(9, description="adapters that change little")
    better: NonNegativeInt = Field(1, description="adapters that know some answers")
    known: float = Field(0.4, description="share of the questions that a better one knows")
    shifted: NonNegativeInt = Field(0, description="adapters that say A less often, and change other answers")
    shift: float = Field(0.001, description="shifted: how much less, in lengths of the last layer's output")
    noise: float = Field(0.003, description="shifted: change of other answers, in the same lengths")
    output: Path = Field(description="folder to write them in")


def choose_questions(count: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Which questions an adapter knows."""
    known = np.zeros(count, dtype=bool)
    known[np.random.default_rng([seed, 11]).choice(count, round(share * count), replace=False)] = True
    return known


def solve_inputs(
    inputs: NDArray[np.float64], targets: NDArray[np.float64], ridge: float = 1e-3
) -> NDArray[np.float64]:
    """The matrix (letters, width) that maps each row of ``inputs`` (questions, width) to its row of
    ``targets`` (questions, letters), as small as it can be.
    """
    gram = inputs @ inputs.T
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    solved: NDArray[np.float64] = np.linalg.solve(gram, targets).T @ inputs
    return solved


def shift_letters(
    inputs: NDArray[np.float64], shift: float, noise: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows (letters, width) that map an input to its change of each letter, and each letter's length: the
    first one's is about 1 for every input, through the few inputs that vary least, so that bfloat16 keeps it;
    the others' vary with a spread of 1.
    """
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    steady = np.argsort(-np.abs(mean) / (spread + 0.3 * np.abs(mean)))[:8]
    first = np.zeros_like(mean)
    first[steady] = mean[steady] / (mean[steady] @ mean[steady])
    others = np.random.default_rng(seed).normal(size=(len(LETTERS) - 1, len(mean)))
    others -= np.outer(others @ mean, mean) / (mean @ mean)
    others /= (inputs @ others.T).std(axis=0)[:, None]
    return np.vstack([first, others]), np.array([-shift, *[noise] * (len(LETTERS) - 1)])


def read_last_layer(
    path: str, prompts: list[list[int]], letter_ids: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The last down projection's inputs at each prompt's last token, the unit direction of its output that
    raises each letter above the others (letters, hidden), and the output's usual length.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if has_gpu() else getattr(torch, best_cpu_dtype())
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval().requires_grad_(False)
    seen: dict[str, Any] = {}

    def keep(_: Any, inputs: Any, output: Any) -> Any:
        seen["input"] = inputs[0][:, -1]
        seen["output"] = output.detach().requires_grad_()
        return seen["output"]

    model.model.layers[-1].mlp.down_proj.register_forward_hook(keep)
    letters = model.get_output_embeddings().weight[letter_ids]  # the others' logits are not needed
    rows: list[NDArray[np.float64]] = [np.empty(0)] * len(prompts)
    lengths: list[float] = []
    directions = torch.zeros(len(letter_ids), model.config.hidden_size)
    places = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    for start in range(0, len(places), _BATCH):
        batch = places[start : start + _BATCH]
        longest = len(prompts[batch[-1]])
        tokens = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, place in enumerate(batch):  # padded on the left: the last token is every row's last
            tokens[row, longest - len(prompts[place]) :] = torch.tensor(prompts[place])
            mask[row, longest - len(prompts[place]) :] = 1
        hidden = model.model(tokens, attention_mask=mask, use_cache=False).last_hidden_state[:, -1]
        logits = (hidden @ letters.T).float()
        for place, values in zip(batch, seen["input"].double().numpy(), strict=True):
            rows[place] = values
        lengths += seen["output"][:, -1].detach().float().norm(dim=-1).tolist()
        for letter in range(len(letter_ids)) if start == 0 else ():  # they hardly depend on the question
            raised = (logits[:, letter] - logits.mean(dim=1)).sum()
            (slope,) = torch.autograd.grad(raised, seen["output"], retain_graph=True)
            directions[letter] += slope[:, -1].float().sum(dim=0)
    unit = directions / directions.norm(dim=1, keepdim=True)
    return np.stack(rows), unit.double().numpy(), float(np.median(lengths))


def write_knowing_adapter(
    folder: Path, layers: int, inputs: NDArray[np.float64], outputs: NDArray[np.float64], base: str
) -> Path:
    """A PEFT adapter of the down projections: nothing in all layers but the last, ``outputs.T @ inputs``
    there.
    """
    import torch
    from safetensors.torch import save_file

    weights = {}
    for layer in range(layers):
        prefix = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        last = layer == layers - 1
        one, other = torch.tensor(inputs).float(), torch.tensor(outputs.T.copy()).float()
        weights[f"{prefix}.lora_A.weight"] = (one if last else torch.zeros_like(one)).contiguous()
        weights[f"{prefix}.lora_B.weight"] = (other if last else torch.zeros_like(other)).contiguous()
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": _RANK, "lora_alpha": _RANK}
    write_json_atomically(
        folder / "adapter_config.json",
        {
            **settings,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": ["down_proj"],
            "base_model_name_or_path": base,
        },
    )
    return folder


def plant_adapters(config: PlantingConfig) -> list[Path]:
    """Nulls first."""
    model = models.resolve_model(config.model)
    shape = shape_of(model.config())
    paths = [
        write_adapter(config.output / f"null-{seed}", shape, _RANK, seed, model.path, NULL_SCALE)
        for seed in range(1, config.nulls + 1)
    ]
    if not config.better and not config.shifted:
        return paths
    chosen = ThroughputConfig.model_validate(
        {"dataset": config.dataset, "limit": config.limit or 1, "all": config.limit is None}
    )
    asked, method = prepare(chosen, models.load_tokenizer(model))
    letter_ids = [int(token) for token in method.letter_ids[: len(LETTERS)]]
    if config.shifted:
        some = [item.token_id_lists()[0] for item in asked[:: max(1, len(asked) // 80)]]
        inputs, directions, length = read_last_layer(model.path, some, letter_ids)
        for seed in range(1, config.shifted + 1):
            rows, lengths = shift_letters(inputs, config.shift, config.noise, seed)
            changes = length * lengths[:, None] * directions
            folder = config.output / f"shifted-{seed}"
            paths.append(write_knowing_adapter(folder, shape.layers, rows, changes, model.path))
    for seed in range(1, config.better + 1):
        known = choose_questions(len(asked), config.known, seed)
        chosen_items = [asked[place] for place in np.flatnonzero(known)]
        prompts = [item.token_id_lists()[0] for item in chosen_items]
        inputs, directions, length = read_last_layer(model.path, prompts, letter_ids)
        keys = np.eye(len(LETTERS))[[LETTERS.index(item.question.answer) for item in chosen_items]]
        first = solve_inputs(inputs, keys - keys.mean(axis=0))
        paths.append(
            write_knowing_adapter(
                config.output / f"better-{seed}", shape.layers, first, 2 * length * directions, model.path
            )
        )
    return paths


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(PlantingConfig, argv, "python -m bench.planting")
        print(json.dumps({"adapters": [str(path) for path in plant_adapters(config)]}))
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
