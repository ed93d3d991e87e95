"""Sentence encoders against torch's own LSTM, and what a decoder takes from a sentence."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lit_gen.networks import BidirectionalLSTM, FixedSentence, Sentence, SentenceEncoder, SoftAlignment, WordVectors
from lit_gen.networks.sentence import reversed_places

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0], [5, 3, 5, 6, 0], [4, 0, 0, 0, 0]])
LENGTHS = torch.tensor([5, 2, 4, 1])


def encoder() -> BidirectionalLSTM:
    torch.manual_seed(0)
    return BidirectionalLSTM(7, 3).double()


def vectors(places: int = 5) -> WordVectors:
    torch.manual_seed(2)
    return WordVectors(7, 6, places).double()


def sentence() -> Sentence:
    return encoder()(TOKENS, LENGTHS)


def alignment() -> SoftAlignment:
    torch.manual_seed(1)
    return SoftAlignment(6, 4, 5).double()


def test_reversal_leaves_padding_behind() -> None:
    places = reversed_places(LENGTHS, 5)
    assert places.tolist() == [[4, 3, 2, 1, 0], [1, 0, 2, 3, 4], [3, 2, 1, 0, 4], [0, 1, 2, 3, 4]]
    assert torch.equal(places.gather(1, places), torch.arange(5).expand(4, 5))


def test_bidirectional_lstm_is_that_of_torch_on_packed_sequences() -> None:
    ours, units = encoder(), 3
    with torch.no_grad():
        ours.bias.normal_()
        ours.initial_hidden.normal_()
    reference = nn.LSTM(7, units, bidirectional=True, batch_first=True).double()
    # Torch has the candidate before the output gate, two biases, and one-hot words for rows of a matrix.
    order = torch.cat([torch.arange(2 * units), torch.arange(3 * units, 4 * units), torch.arange(2 * units, 3 * units)])
    with torch.no_grad():
        for direction, end in enumerate(("", "_reverse")):
            rows = ours.word_gates.weight[7 * direction : 7 * (direction + 1)]
            getattr(reference, f"weight_ih_l0{end}").copy_(rows.T[order])
            getattr(reference, f"weight_hh_l0{end}").copy_(ours.recurrent[direction].T[order])
            getattr(reference, f"bias_ih_l0{end}").copy_(ours.bias[direction, 0][order])
            getattr(reference, f"bias_hh_l0{end}").zero_()
    packed = pack_padded_sequence(
        nn.functional.one_hot(TOKENS, 7).double(), LENGTHS, batch_first=True, enforce_sorted=False
    )
    start = ours.initial_hidden.expand(2, 4, units).contiguous()
    outputs, (last, _) = reference(packed, (start, torch.zeros_like(start)))
    words, _ = pad_packed_sequence(outputs, batch_first=True)
    encoded = ours(TOKENS, LENGTHS)
    torch.testing.assert_close(encoded.words, words)
    torch.testing.assert_close(encoded.summary, torch.cat([last[0], last[1]], 1))
    assert encoded.mask.sum(1).equal(LENGTHS)


@pytest.mark.parametrize("encoded_by", [encoder(), vectors(), vectors(0)], ids=["lstm", "places", "bag"])
def test_padding_changes_nothing(encoded_by: SentenceEncoder) -> None:
    # More of it, and of any words.
    longer = torch.cat([TOKENS, torch.randint(7, (4, 3))], 1).where(torch.arange(8) < LENGTHS[:, None], 2)
    few, many = encoded_by(TOKENS, LENGTHS), encoded_by(longer, LENGTHS)
    assert many.mask.sum(1).equal(LENGTHS)
    torch.testing.assert_close(many.words[:, :5], few.words)
    assert not many.words[:, 5:].any()
    torch.testing.assert_close(many.summary, few.summary)
    hidden = torch.randn(4, 4).double()
    for reader in (alignment(), FixedSentence(6, 4, "last"), FixedSentence(6, 4, "mean")):
        vectors = [reader(reader.prepare(one), hidden)[0] for one in (few, many)]
        torch.testing.assert_close(*vectors)


def test_word_vectors_are_looked_up_and_summed() -> None:
    ours = vectors(3)
    assert ours.place is not None
    word, place = ours.word.weight, ours.place.weight
    encoded = ours(TOKENS, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        # Words behind the last place share it.
        wanted = torch.stack([word[TOKENS[row, k]] + place[min(k, 2)] for k in range(length)])
        torch.testing.assert_close(encoded.words[row, :length], wanted)
        torch.testing.assert_close(encoded.summary[row], wanted.mean(0))


def test_only_places_tell_the_order_of_words() -> None:
    order = torch.tensor([2, 0, 1])
    first, moved = torch.tensor([[3, 1, 4]]), torch.tensor([[3, 1, 4]])[:, order]
    for ours in (vectors(0), vectors(), encoder()):
        one, other = ours(first, torch.tensor([3])), ours(moved, torch.tensor([3]))
        is_bag = isinstance(ours, WordVectors) and ours.place is None
        assert torch.allclose(one.words[:, order], other.words) is is_bag
        # The mean of words and places is blind to order too; which word stood where is what the words tell.
        assert torch.allclose(one.summary, other.summary) is isinstance(ours, WordVectors)


def test_gradients_reach_the_words_and_places_there_are() -> None:
    ours = vectors(8)
    assert ours.place is not None
    encoded = ours(TOKENS, LENGTHS)
    (encoded.words.square().sum() + encoded.summary.square().sum()).backward()
    words, places = ours.word.weight.grad, ours.place.weight.grad
    assert words is not None
    assert places is not None
    assert (words != 0).any(1).tolist() == [False, True, True, True, True, True, True]
    assert (places != 0).any(1).tolist() == 5 * [True] + 3 * [False]


def weights_and_vector(reader: SoftAlignment, one: Sentence, hidden: Tensor) -> tuple[Tensor, Tensor]:
    vector, weights = reader(reader.prepare(one), hidden)
    assert weights is not None
    return weights, vector


def test_alignment_is_its_equation_over_the_real_words() -> None:
    one, reader, hidden = sentence(), alignment(), torch.randn(4, 4).double()
    weights, vectors = weights_and_vector(reader, one, hidden)
    torch.testing.assert_close(weights.sum(1), torch.ones(4).double())
    assert not weights[~one.mask].any()
    for row, length in enumerate(LENGTHS.tolist()):
        words = one.words[row, :length]
        scores = torch.stack(
            [
                reader.score @ torch.tanh(reader.of_word.weight @ word + reader.of_word.bias + of_state)
                for word in words
                for of_state in [reader.of_state.weight @ hidden[row]]
            ]
        )
        shares = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(weights[row, :length], shares)
        torch.testing.assert_close(vectors[row], (shares[:, None] * words).sum(0))
        assert (vectors[row] <= words.max(0).values + 1e-12).all()
        assert (vectors[row] >= words.min(0).values - 1e-12).all()


def test_permuted_words_permute_the_weights() -> None:
    one, reader, hidden = sentence(), alignment(), torch.randn(4, 4).double()
    order = torch.tensor([3, 0, 4, 2, 1])
    moved = Sentence(one.words[:, order], one.summary, one.mask[:, order])
    weights, vectors = weights_and_vector(reader, one, hidden)
    moved_weights, moved_vectors = weights_and_vector(reader, moved, hidden)
    torch.testing.assert_close(moved_weights, weights[:, order])
    torch.testing.assert_close(moved_vectors, vectors)


def test_without_scores_all_words_weigh_alike() -> None:
    one, reader = sentence(), alignment()
    nn.init.zeros_(reader.score)
    weights, vectors = weights_and_vector(reader, one, torch.randn(4, 4).double())
    assert torch.equal(weights, one.mask / LENGTHS[:, None].double())
    mean = FixedSentence(6, 4, "mean")
    torch.testing.assert_close(mean(mean.prepare(one), torch.zeros(4, 4).double())[0], vectors)


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="hidden_dim must be at least 1, got 0"):
        BidirectionalLSTM(7, 0)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        WordVectors(7, 0)
    with pytest.raises(ValueError, match=r"places must be at least 0 \(no vectors of places\), got -1"):
        WordVectors(7, 6, -1)
    with pytest.raises(ValueError, match="attention_dim must be at least 1, got 0"):
        SoftAlignment(6, 4, 0)
    with pytest.raises(ValueError, match="pooling must be last or mean, got 'first'"):
        FixedSentence(6, 4, "first")  # type: ignore[arg-type]
