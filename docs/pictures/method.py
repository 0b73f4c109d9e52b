"""Draws the picture of the method: `python docs/pictures/method.py`."""

import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

DATA, STEP, LOSS, MODEL = "#e8eef7", "#fdf0d9", "#f9e1dc", "#e2f0e2"
EDGE, ACCENT = "#444444", "#b03a2e"

figure, axes = plt.subplots(figsize=(11, 5.3), dpi=110)
axes.set(xlim=(0, 110), ylim=(0, 53))
axes.axis("off")


def frame(x, y, width, height, colour, edge):
    style = "round,pad=0,rounding_size=1"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=colour, ec=edge))


def box(x, y, width, height, title, text, colour):
    """Draws a box with its lower left corner at (x, y)."""
    frame(x, y, width, height, colour, EDGE)
    middle = x + width / 2
    axes.text(middle, y + height - 2.4, title, ha="center", va="center", fontsize=10.5, weight="bold")
    axes.text(middle, y + (height - 3.6) / 2, text, ha="center", va="center", fontsize=9.5, linespacing=1.5)


def arrow(*points, colour=EDGE, style="-"):
    """Draws a line through the points, with a head at the last one."""
    *line, last = points
    for start, end in zip(line, line[1:]):
        axes.plot(*zip(start, end), color=colour, ls=style, lw=1.5, solid_capstyle="round")
    head = {"arrowstyle": "-|>", "color": colour, "ls": style, "lw": 1.5, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", last, line[-1], arrowprops=head)


def band(y, height, label):
    """Draws the background of a phase."""
    frame(0.5, y, 109, height, "#fafafa", "#cccccc")
    axes.text(2, y + height - 2.5, label, va="center", fontsize=12, weight="bold", color="#333333")


band(18, 34.5, "Meta-training: 16 personas at a time")
box(2, 26, 20, 17, "One persona", "dialogues and\npersona statements\n“i play the violin”", DATA)
box(27, 36, 17, 9, "Support", "one dialogue", DATA)
box(27, 23, 17, 9, "Query", "another dialogue", DATA)
box(47.5, 36, 31, 9, "Inner step (SGD)", r"$\phi' = \phi - \eta_t\,\nabla L_{\mathrm{support}}(\phi)$", STEP)
box(47.5, 23, 31, 9, "Query loss", r"$\alpha\,L_{\mathrm{response}}(\phi') + (1-\alpha)\,L_{\mathrm{persona}}(\phi')$", LOSS)
box(83, 27, 24.5, 15, "Outer step (Adam)", "mean over personas;\ngradient through the\ninner step (second order)", STEP)
arrow((22, 38), (24.5, 38), (24.5, 40.5), (27, 40.5))
arrow((22, 30), (24.5, 30), (24.5, 27.5), (27, 27.5))
arrow((44, 40.5), (47.5, 40.5))
arrow((44, 27.5), (47.5, 27.5))
arrow((63, 36), (63, 32))
axes.text(64, 34, r"$\phi'$", va="center", fontsize=11)
arrow((78.5, 27.5), (80.75, 27.5), (80.75, 31), (83, 31))
arrow((95.25, 42), (95.25, 48), (63, 48), (63, 45))
axes.text(78.5, 49.3, r"better initial parameters $\phi$", ha="center", va="center", fontsize=9.5)
arrow((12, 26), (12, 20.5), (63, 20.5), (63, 23), colour=ACCENT, style="--")
axes.text(37, 19.2, "targets of the persona task (both losses), in training only", ha="center", va="center", fontsize=9, color=ACCENT)

band(0.5, 16, "At test")
box(2, 2.5, 24, 10, "New speaker", "5 dialogues,\nno persona statements", DATA)
box(32, 2.5, 25, 10, "Adapt (SGD)", r"response loss, from $\phi$", STEP)
box(63.5, 2.5, 20, 10, "Adapted model", "speaks for them", MODEL)
box(90, 2.5, 17, 10, "Replies", "“i am off to my\nviolin lesson”", DATA)
arrow((26, 7.5), (32, 7.5))
arrow((57, 7.5), (63.5, 7.5))
arrow((83.5, 7.5), (90, 7.5))

figure.savefig(pathlib.Path(__file__).with_suffix(".png"), bbox_inches="tight", pad_inches=0.05)
