"""Fix the primary endpoint of a study, before any test persona is scored."""

from collections.abc import Sequence

from mtml_jax.eval.protocol import EPOCHS


def primary_endpoint(data: str, shots: Sequence[int]) -> dict[str, str | int]:
    """The one comparison that the study answers: MTML 0.8 minus PAML at the end of adaptation.

    The score is the share of replies with right facts on the demo corpus, whose facts are known,
    and elsewhere C against the own persona minus C against a shuffled one.
    """
    return {
        "score": "facts" if data == "demo" else "c_own_minus_shuffled",
        "one": "mtml-0.8", "other": "paml", "shots": shots[-1], "epoch": EPOCHS[-1],
    }  # fmt: skip
