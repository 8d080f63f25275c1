"""Models of several architectures with random weights, small enough to be made in a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from real_texts import long_tailed

MAX_LENGTH = 64
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def bert_mean(path: Path) -> Path:
    """Mean of the tokens, as all-MiniLM-L6-v2."""
    tokenizer = _tokenizer(models.WordPiece(unk_token="[UNK]"), "[CLS]", "[SEP]", "[PAD]", "[UNK]")
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_LENGTH, **_SIZES)
    return _save(path, BertModel(config), tokenizer, lambda size: [Pooling(size), Normalize()])


def mpnet_dense(path: Path) -> Path:
    """Mean of the tokens through a dense layer, as the multilingual models distilled from larger ones."""
    tokenizer = _tokenizer(models.WordPiece(unk_token="[UNK]"), "<s>", "</s>", "<pad>", "[UNK]")
    config = MPNetConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_LENGTH + 2,
        pad_token_id=tokenizer.pad_token_id,
        **_SIZES,
    )
    return _save(path, MPNetModel(config), tokenizer, lambda size: [Pooling(size), Dense(size, 24)])


def xlm_roberta_cls(path: Path) -> Path:
    """The first token's vector, pieces of a unigram model, as bge-m3."""
    tokenizer = _tokenizer(models.Unigram(), "<s>", "</s>", "<pad>", "<unk>")
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_LENGTH + 2 + tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        type_vocab_size=1,
        **_SIZES,
    )
    return _save(
        path, XLMRobertaModel(config), tokenizer, lambda size: [Pooling(size, pooling_mode="cls"), Normalize()]
    )


ARCHITECTURES: dict[str, Callable[[Path], Path]] = {
    "BERT, mean": bert_mean,
    "MPNet, mean and a dense layer": mpnet_dense,
    "XLM-RoBERTa, first token": xlm_roberta_cls,
}


def _tokenizer(model: models.Model, first: str, last: str, pad: str, unknown: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [first, pad, last, unknown, "[MASK]"]
    trainer = (
        trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token=unknown)
        if isinstance(model, models.Unigram)
        else trainers.WordPieceTrainer(vocab_size=600, special_tokens=special)
    )
    tokenizer.train_from_iterator(long_tailed(300), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(first, tokenizer.token_to_id(first)), (last, tokenizer.token_to_id(last))],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        bos_token=first,
        eos_token=last,
        mask_token="[MASK]",
        model_max_length=MAX_LENGTH,
    )


def _save(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rest: Callable[[int], list[torch.nn.Module]],
) -> Path:
    torch.manual_seed(1)
    model.init_weights()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    # Random layers make all vectors alike unless they are larger than those that a training begins with.
    for parameter in model.parameters():
        parameter.data.mul_(5)
    bare = path / "bare"
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    first = Transformer(str(bare), max_seq_length=MAX_LENGTH)
    whole = path / "model"
    SentenceTransformer(modules=[first, *rest(_SIZES["hidden_size"])], device="cpu").save(str(whole))
    return whole
