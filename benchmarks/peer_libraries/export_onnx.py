"""Write a model's weights as an ONNX file that fastembed takes, with its tokenizer cut at the same length.

Run by ``peers.py`` in an environment of its own. Arguments: the model's directory, and the one to fill.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModel

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
OUTPUT = "last_hidden_state"


class Tokens(torch.nn.Module):
    """The vectors of tokens alone: fastembed does the pooling."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """In the order of ``INPUTS``."""
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


def main(source: Path, target: Path) -> None:
    """Export, and copy what stands beside the weights."""
    # Of all its kinds of attention, the one whose pattern onnxruntime knows and fuses.
    model = AutoModel.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(1_000, 2_000, (2, 16))
    torch.onnx.export(
        Tokens(model),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        str(target / "model.onnx"),
        input_names=INPUTS,
        output_names=[OUTPUT],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in [*INPUTS, OUTPUT]},
        opset_version=17,
        dynamo=False,
    )
    for file in source.glob("*.json"):
        shutil.copy(file, target)
    # fastembed cuts at the tokenizer's length, sentence-transformers at its own.
    length = json.loads((source / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": length}
    path.write_text(json.dumps(config), encoding="utf-8")


main(Path(sys.argv[1]), Path(sys.argv[2]))
