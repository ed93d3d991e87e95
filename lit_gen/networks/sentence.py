"""Encoders of sentences, and what a decoder takes from a sentence at each of its steps.

Mansimov, Parisotto, Ba & Salakhutdinov 2016, Generating images from captions with attention
(https://arxiv.org/abs/1511.02793), sections 3.1 and 3.2.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from lit_gen.networks.network import Recorded, full_precision
from lit_gen.networks.recurrent import linear_of_unit_gain

Pooling = Literal["last", "mean"]


class Sentence(NamedTuple):
    """B sentences of unlike many words."""

    words: Tensor
    """(B, T, D) a vector for each word in its context, 0 behind the last word."""
    summary: Tensor
    """(B, D) one vector for all of the sentence."""
    mask: Tensor
    """(B, T) bool: where there is a word."""


class SentenceEncoder(Recorded, nn.Module, ABC):
    """Vectors for the words of sentences; what stands behind the last word of one must change nothing.

    Args:
        num_words: size of the vocabulary, padding included.
    """

    sizes = 1

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.num_words = num_words

    @property
    @abstractmethod
    def output_dim(self) -> int:
        """D, the length of the vectors."""

    @abstractmethod
    def forward(self, tokens: Tensor, lengths: Tensor) -> Sentence:
        """Word numbers ``(B, T)``, of which the first ``lengths`` ``(B,)`` (at least 1) count."""


def reversed_places(lengths: Tensor, total: int) -> Tensor:
    """``(B, T)`` places of the words from the last to the first; padding stays where it is, behind them.

    Taking them twice gives the order that was.
    """
    places = torch.arange(total, device=lengths.device)
    mirrored = lengths[:, None] - 1 - places
    return torch.where(mirrored >= 0, mirrored, places)


class BidirectionalLSTM(SentenceEncoder):
    """Two LSTMs, one from the first word to the last, one from the last to the first.

    A word goes straight into the gates, as a row of a matrix (there is no embedding below it). Both directions start
    from one learned hidden state. They run side by side: each word costs one product for both.

    The summary is what each direction has come to at its end: after the last word, and after the first.

    Args:
        num_words: size of the vocabulary, padding included.
        hidden_dim: units of each direction; the vectors are twice as long.
    """

    def __init__(self, num_words: int, hidden_dim: int = 128) -> None:
        super().__init__(num_words)
        if hidden_dim < 1:
            raise ValueError(f"hidden_dim must be at least 1, got {hidden_dim}")
        self.hidden_dim = hidden_dim
        # Rows of words read forwards, then of words read backwards: input, forget and output gate, candidate.
        self.word_gates = nn.Embedding(2 * num_words, 4 * hidden_dim)
        self.recurrent = nn.Parameter(torch.empty(2, hidden_dim, 4 * hidden_dim))
        self.bias = nn.Parameter(torch.zeros(2, 1, 4 * hidden_dim))
        self.initial_hidden = nn.Parameter(torch.zeros(hidden_dim))
        for direction in self.recurrent:
            nn.init.orthogonal_(direction.detach())
        with torch.no_grad():
            self.bias[:, :, hidden_dim : 2 * hidden_dim] = 1

    @property
    def output_dim(self) -> int:
        return 2 * self.hidden_dim

    def forward(self, tokens: Tensor, lengths: Tensor) -> Sentence:
        batch, total = tokens.shape
        backwards = reversed_places(lengths, total)
        numbers = torch.stack([tokens, tokens.gather(1, backwards) + self.num_words])  # (2, B, T)
        of_words = self.word_gates(numbers) + self.bias[:, None]
        hidden = self.initial_hidden.expand(2, batch, self.hidden_dim)
        cell = torch.zeros_like(hidden)
        states = []
        for of_word in of_words.unbind(2):
            gates = full_precision(torch.baddbmm(of_word, hidden, self.recurrent))
            taken, kept, shown, candidate = gates.chunk(4, 2)
            cell = torch.sigmoid(kept) * cell + torch.sigmoid(taken) * torch.tanh(candidate)
            hidden = torch.sigmoid(shown) * torch.tanh(cell)
            states.append(hidden)
        forward, backward = torch.stack(states, 2)
        last = (lengths - 1)[:, None, None].expand(-1, 1, self.hidden_dim)
        summary = torch.cat([forward.gather(1, last), backward.gather(1, last)], 2)[:, 0]
        # Back into the order of the words, so that both vectors of a word stand side by side.
        backward = backward.gather(1, backwards[:, :, None].expand_as(backward))
        mask = torch.arange(total, device=tokens.device) < lengths[:, None]
        return Sentence(torch.cat([forward, backward], 2) * mask[:, :, None], summary, mask)


class WordVectors(SentenceEncoder):
    """Words that know nothing of their neighbours: the learned vector of a word plus that of its place.

    The summary is the mean of the words, in which their order is lost; without places the words do not know it either.

    Args:
        num_words: size of the vocabulary, padding included.
        dim: length of the vectors.
        places: places with vectors of their own; words behind them share the last one. 0: no vectors of places.
    """

    def __init__(self, num_words: int, dim: int = 128, places: int = 32) -> None:
        super().__init__(num_words)
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        if places < 0:
            raise ValueError(f"places must be at least 0 (no vectors of places), got {places}")
        self.dim = dim
        self.word = nn.Embedding(num_words, dim)
        self.place = nn.Embedding(places, dim) if places else None

    @property
    def output_dim(self) -> int:
        return self.dim

    def forward(self, tokens: Tensor, lengths: Tensor) -> Sentence:
        numbers = torch.arange(tokens.shape[1], device=tokens.device)
        mask = numbers < lengths[:, None]
        words = self.word(tokens)
        if self.place is not None:
            words = words + self.place(numbers.clamp(max=self.place.num_embeddings - 1))
        words = words * mask[:, :, None]
        return Sentence(words, words.sum(1) / lengths[:, None], mask)


class SentenceReader(Recorded, nn.Module, ABC):
    """What a decoder takes from a sentence at each step, guided by its own hidden state.

    Args:
        word_dim: length of the vectors of the words.
        state_dim: units of the decoder.
    """

    sizes = 2

    def __init__(self, word_dim: int, state_dim: int) -> None:
        super().__init__()
        self.word_dim = word_dim
        self.state_dim = state_dim

    @abstractmethod
    def prepare(self, sentence: Sentence) -> Any:
        """What all steps share, computed once for each sentence."""

    @abstractmethod
    def forward(self, prepared: Any, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """The vector of this step ``(B, word_dim)``, and the weights of the words ``(B, T)`` if there are any.

        Args:
            prepared: of :meth:`prepare`.
            hidden: ``(B, state_dim)`` of the decoder before this step.
        """


class SoftAlignment(SentenceReader):
    """A weighted mean of the words, with weights softmax over k of v tanh(U h_k + W h_dec + b), sum 1, padding none.

    The alignment of Bahdanau, Cho & Bengio 2015 (https://arxiv.org/abs/1409.0473).

    Args:
        word_dim: length of the vectors of the words.
        state_dim: units of the decoder.
        attention_dim: units of the tanh.
    """

    def __init__(self, word_dim: int, state_dim: int, attention_dim: int = 512) -> None:
        super().__init__(word_dim, state_dim)
        if attention_dim < 1:
            raise ValueError(f"attention_dim must be at least 1, got {attention_dim}")
        self.of_word = linear_of_unit_gain(word_dim, attention_dim)
        self.of_state = nn.Linear(state_dim, attention_dim, bias=False)
        nn.init.normal_(self.of_state.weight, std=state_dim**-0.5)
        self.score = nn.Parameter(attention_dim**-0.5 * torch.randn(attention_dim))

    def prepare(self, sentence: Sentence) -> tuple[Tensor, Tensor, Tensor]:
        return sentence.words, full_precision(self.of_word(sentence.words)), ~sentence.mask

    def forward(self, prepared: tuple[Tensor, Tensor, Tensor], hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        words, keys, padding = prepared
        scores = torch.tanh(keys + self.of_state(hidden)[:, None]) @ self.score
        weights = torch.softmax(full_precision(scores).masked_fill(padding, -math.inf), 1)
        return (weights[:, None] @ words)[:, 0], weights


class FixedSentence(SentenceReader):
    """The same vector at every step: noalignDRAW, the model without attention to words.

    Args:
        word_dim: length of the vectors of the words.
        state_dim: units of the decoder, which is not asked.
        pooling: ``last``, the encoder's summary of the sentence, or the ``mean`` of its words.
    """

    def __init__(self, word_dim: int, state_dim: int, pooling: Pooling = "last") -> None:
        super().__init__(word_dim, state_dim)
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be {' or '.join(get_args(Pooling))}, got {pooling!r}")
        self.pooling = pooling

    def prepare(self, sentence: Sentence) -> Tensor:
        if self.pooling == "last":
            return sentence.summary
        return sentence.words.sum(1) / sentence.mask.sum(1, keepdim=True)

    def forward(self, prepared: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        return prepared, None


SentenceEncoderFactory = Callable[[int], SentenceEncoder]
SentenceReaderFactory = Callable[[int, int], SentenceReader]
