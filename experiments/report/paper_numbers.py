"""Hold the numbers that the paper and PAML's authors report."""

from typing import NamedTuple


class Reported(NamedTuple):
    """A line of table 2 or 3; C is against the persona's own statements."""

    ppl: float
    bleu: float
    c: float


# Lee, Lee and Gan (2021), on PersonaChat: shots -> row -> numbers.
PAPER = {
    10: {  # table 2
        "std": Reported(35.87, 0.93, 0.00),
        "std_p": Reported(38.72, 1.66, 0.10),
        "paml": Reported(41.80, 0.71, 0.19),
        "mtml-0.5": Reported(77.32, 0.53, 0.46),
        "mtml-0.6": Reported(57.10, 0.53, 0.41),
        "mtml-0.7": Reported(52.44, 0.57, 0.47),
        "mtml-0.8": Reported(43.28, 0.42, 0.34),
        "mtml-0.9": Reported(40.39, 0.71, 0.21),
        "amtml": Reported(48.66, 0.48, 0.29),
    },
    5: {  # table 3
        "std": Reported(36.75, 1.02, -0.02),
        "std_p": Reported(38.78, 1.79, 0.09),
        "paml": Reported(40.46, 0.65, 0.15),
        "mtml-0.5": Reported(76.38, 0.41, 0.50),
        "mtml-0.6": Reported(55.19, 0.53, 0.48),
        "mtml-0.7": Reported(50.69, 0.44, 0.45),
        "mtml-0.8": Reported(41.42, 0.38, 0.30),
        "mtml-0.9": Reported(39.94, 0.62, 0.13),
        "amtml": Reported(44.90, 0.42, 0.26),
    },
}
PAML_CURVE = {0: -0.05, 1: -0.03, 3: 0.06, 5: 0.11, 7: 0.16, 10: 0.20}  # C by epoch, its plots
PAML_HUMAN_C = 0.33  # Madotto et al. (2019), of the human replies
INNER_LR, OUTER_LR = 0.005, 0.003  # section 3.2
EPOCHS_AT_TEST = 10  # Madotto et al. (2019); the paper names none
