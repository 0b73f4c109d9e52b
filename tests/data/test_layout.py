"""The contexts of a decoder's replies, laid out as beginnings of the rows of their windows."""

import numpy as np
import pytest
from test_subwords import metadata

from mtml_jax.config_decoder import RowShape
from mtml_jax.data.gguf_file import GgufFile
from mtml_jax.data.layout import ROWS_A_DECODE, lay_out_replies, measure_replies, reply_rows
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.strands import RowEncoding
from mtml_jax.data.subwords import from_gguf

pytest.importorskip("tokenizers")


def test_each_reply_is_decoded_after_the_beginning_of_its_window(tmp_path):
    subwords = from_gguf(GgufFile(tmp_path / "a.gguf", None, metadata(), {}))
    encoding = RowEncoding(subwords, RowShape(400), tasks=(("response",),), whole=True)
    turns = tuple(Turn(f"the {n} cat?", "no, " * (n % 3) + "the dog.") for n in range(23))
    windows, _ = encoding.encode(Dialogue("c", "s", (), turns))
    counts = [len(window.replies) for window in windows]
    assert len(windows) > 1 and max(counts) > ROWS_A_DECODE  # two windows, one of them in two groups
    wanted = [context for window in windows for context in window.contexts()]

    groups, slots = measure_replies(windows, encoding)
    assert groups == sum(-(-n // ROWS_A_DECODE) for n in counts)
    rows = lay_out_replies(windows, encoding, (groups + 1, slots))
    assert rows.ids.shape == rows.position.shape == (groups + 1, slots)
    assert rows.segment.shape == (groups + 1, ROWS_A_DECODE, slots)
    places = reply_rows(windows, encoding)
    assert len(places) == len(wanted) == 23
    for place, context in zip(places, wanted):
        group, row = divmod(place, ROWS_A_DECODE)
        seen = rows.segment[group, row] == 1
        assert rows.ids[group][seen].tolist() == list(context[:-1])
        assert not seen[len(context) - 1 :].any()
    others = np.delete(rows.segment.reshape(-1, slots), places, axis=0)
    assert not others.any()
