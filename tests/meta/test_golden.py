"""Hold two outer steps of every strategy against an independent implementation.

The golden values come from a PyTorch script in float64: one example at a time, no packing,
no padding, no masks but the causal one, `torch.autograd.grad(..., create_graph=True)` for the
inner gradient, a loop over personas, `torch.optim.Adam`. To rebuild it:

*Model.* Encoder of 2 layers and decoder of 3, width 10, 2 heads, feed-forward 7, 19 words.
Input: sqrt(10) * embedding + sinusoid, rates 10000^(-2i/10), the five sines before the five
cosines. A sub-layer is x + f(norm(x)), with a last norm after each stack; eps of the norm is
1e-6; ReLU; queries, values and outputs have biases, keys have none; `query_key_value` holds
the three matrices side by side, `key_value` two. Logits are a product with the embedding.

*Weights*: the leaves of the nested dict with sorted keys, those of the layers of a stack
stacked along a leading axis, 0.3 * default_rng(0).standard_normal(shape), plus 1 for the
scales of the norms.

*Data*: rng = default_rng(1); for each of 4 personas, for support and then query:
turns = rng.integers(1, 4), then `draw_dialogue` of conftest.py. The targets of both tasks end
with id 4 and their inputs begin with id 2. `std_p` has the statements, without their end, in
front of every context; `std` and `std_p` take the turns of support and query of all personas.

*Step.* alpha 0.7, inner_lr 0.3, outer_lr 0.01; losses are means over tokens; the gradient is
clipped to a global norm of 2, Adam has b1 0.9, b2 0.999, eps 1e-8. The phase of AMTML stays.

*Values.* The loss and the norm of the gradient before clipping, at the first step and at the
second; the product of each leaf of the first gradient with a probe, which is drawn like the
weights with seed 2; and the same of what two steps changed, summed over each entry of params.
"""

import dataclasses
import functools
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
import optax
import pytest

from mtml_jax.config import ModelConfig, StepConfig, TileShape
from mtml_jax.data.packing import pack, stack
from mtml_jax.meta import outer
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.model import transformer
from mtml_jax.sharding import Placement, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.types import Episode, Rates

pytestmark = pytest.mark.usefixtures("float64")

MODEL = ModelConfig(
    encoder_layers=2, decoder_layers=3, heads=2, width=10, feed_forward=7, dtype="float64"
)
CONFIG = StepConfig(MODEL, gradient="mixed", persona_chunk=1)
VOCABULARY = 19
PERSONAS = 4
SHAPE, TILES = TileShape(rows=2, context=11, response=7, persona=13), 2
RATES = Rates(alpha=np.float64(0.7), inner_lr=np.float64(0.3), outer_lr=np.float64(0.01))


class Golden(NamedTuple):
    """Numbers of the independent implementation, see above."""

    loss: float
    norm: float
    gradient: tuple[float, ...]
    second_loss: float
    second_norm: float
    moved: tuple[float, ...]


GOLDEN = {
    "std": Golden(
        loss=3.600840265748e+00,
        norm=2.579144991420e+00,
        gradient=(
            -1.258403833916e-01, 6.735514262002e-03, -1.361087503806e-02, 2.752145333012e-01,
            5.016474100363e-02, -6.351157210045e-03, -2.228557815617e-04, -2.984390025578e-02,
            6.547802820582e-02, 4.257333204867e-02, 1.144252891012e-02, -1.059423440940e-01,
            -1.014833663962e-01, -4.950165657561e-02, -8.025948096042e-02, -4.113124419044e-02,
            1.033563000988e-01, -1.006470730573e-03, 9.836231602459e-03, -5.075977809802e-02,
            -2.446626698922e-02, 9.085165562005e-02, 1.279767808735e+00, -7.000625879140e-01,
            -1.084338104907e-01, 1.668867013391e-03, -1.626844970095e-02, -1.744574579389e-02,
            1.176631830074e-02, -1.429487343340e-02, -5.828952639736e-03, 2.070021294424e-02,
            1.394471552963e-01, 1.382902122392e-02, 2.653283647538e-03, -5.404486507506e-02,
            5.013140080320e-03, 2.784022110011e-02, 1.496152370520e-01,
        ),
        second_loss=2.972288073172e+00,
        second_norm=1.805285227697e+00,
        moved=(
            8.667491413537e-02, -1.502816719444e-01, 8.980886700544e-02, -2.521666982594e-02,
            -4.990456119271e-02,
        ),
    ),
    "std_p": Golden(
        loss=3.588744229259e+00,
        norm=2.494307321800e+00,
        gradient=(
            -1.138621867897e-01, 5.060395996949e-03, -2.877573053977e-02, 2.881501235388e-01,
            3.855859863716e-02, 5.167993283701e-03, -3.475376111076e-03, -3.580003834525e-02,
            4.741074692985e-02, 4.013403005785e-02, 8.042004125923e-03, -7.321857439025e-02,
            -1.018872843116e-01, -5.371048712857e-02, -6.916099255256e-02, -7.746896470060e-02,
            9.054851628407e-02, 7.957407385302e-03, 4.726824566857e-03, -2.632114211587e-02,
            -1.666109139874e-02, 9.684993519124e-02, 1.258927065733e+00, -7.385579399933e-01,
            -7.919928085190e-02, 5.693999619399e-03, -1.291509428205e-02, -2.064928530063e-02,
            1.459089828347e-02, -7.081948032837e-03, -1.572542210660e-02, -3.232146048574e-02,
            1.240237552843e-01, 2.289400585049e-02, -1.264010616446e-03, -4.376575534589e-02,
            2.296528430329e-03, 4.885011991812e-02, 1.364109051662e-01,
        ),
        second_loss=2.983552304585e+00,
        second_norm=1.821506763868e+00,
        moved=(
            1.741865150090e-02, -1.522474491097e-01, 4.870976775415e-02, -6.178067592451e-03,
            -4.599720875567e-02,
        ),
    ),
    "paml": Golden(
        loss=2.497074695167e+00,
        norm=3.004352594519e+00,
        gradient=(
            -5.135250853647e-02, 4.955661840963e-03, -3.342833772065e-02, -1.242478150338e-01,
            4.949167530977e-02, -2.902493327010e-02, 7.442439381121e-03, 1.852780632840e-02,
            -5.065650014458e-02, 1.428940278050e-02, 7.829830730781e-02, 2.011519049363e-01,
            -7.115692163395e-02, 3.533895657943e-03, 1.814256908365e-02, 1.577493485413e-01,
            -8.845119082793e-01, 3.471877539598e-02, -4.334467274867e-02, 2.386687984019e-01,
            -9.844914976181e-02, 1.740401735829e-01, 4.724299342887e-01, -7.205615802304e-01,
            -6.897046649615e-02, -2.910452320560e-03, -1.436345002287e-02, 9.745879426706e-02,
            1.066881717710e-01, 9.074264607054e-04, 1.845824190585e-02, -3.536942289367e-02,
            -4.713605542508e-02, 1.761154790955e-02, 6.563465812349e-03, -1.712896667059e-02,
            -3.761474862421e-02, -4.789590205997e-02, 1.438830973772e-01,
        ),
        second_loss=2.081264401160e+00,
        second_norm=1.242874769837e+00,
        moved=(
            5.593071765206e-01, -5.534383570979e-02, 8.611500643524e-02, 1.865525815009e-02,
            2.482152758975e-02,
        ),
    ),
    "mtml": Golden(
        loss=2.620547858003e+00,
        norm=1.920185668283e+00,
        gradient=(
            -2.044604838453e-02, 6.817326683229e-03, -1.815990030751e-02, -2.787259097774e-02,
            1.837507898135e-02, -2.177204487152e-02, 3.680802364447e-03, -6.711055148832e-03,
            3.043398458892e-02, 2.707793570435e-02, 4.341312581151e-02, 1.189183823219e-01,
            -6.777832704493e-02, -9.078276221577e-03, -5.065058727123e-03, 1.402353777350e-01,
            -3.164046371954e-01, 2.789353902164e-02, -1.368388698274e-02, 1.496620294948e-01,
            -6.603158490601e-02, 9.970476910161e-02, 4.261310453621e-02, -7.890023620417e-01,
            -3.104029101348e-02, -4.319211936752e-03, -6.277340893095e-03, 4.867112319654e-02,
            4.656340132144e-02, 2.068774514926e-03, 1.246972344853e-02, -3.099355374693e-02,
            -5.548024094008e-02, 3.456911415226e-03, 2.016265118246e-03, -7.003040915293e-03,
            -1.719987940414e-02, -2.541844081511e-02, -5.518598386597e-02,
        ),
        second_loss=2.320033886165e+00,
        second_norm=8.497036084892e-01,
        moved=(
            1.996929268871e-01, -1.135361963302e-02, 9.585734915473e-02, -1.280586243866e-01,
            2.492152423867e-02,
        ),
    ),
    "amtml even": Golden(
        loss=3.523492353726e+00,
        norm=2.976288491998e+00,
        gradient=(
            1.841021673831e-01, -2.291055675446e-03, -9.511841559359e-03, -7.567081752714e-02,
            4.890080200754e-02, -2.359590681615e-02, -2.919934876543e-03, -1.457090215735e-01,
            -6.963247272908e-02, -7.707890287529e-02, 4.455293625084e-02, 1.995935248937e-01,
            -1.302525038560e-01, -6.464132191928e-02, 2.151315636606e-02, 3.403605490948e-01,
            -6.138046746368e-01, -3.460505920392e-02, -3.224493102886e-02, 1.893799533385e-01,
            -3.150638293254e-02, -1.292676654641e-01, 1.788385277728e+00, -6.468077866488e-01,
            2.053945041201e-01, -1.984092557789e-02, 2.780653903108e-02, 4.359573089930e-02,
            2.184171057392e-02, 1.705034800170e-02, 4.170040775607e-02, -2.457120081765e-02,
            -5.159177543535e-01, -3.606662375185e-02, -1.888123317208e-02, -1.343283382784e-02,
            -3.697119529354e-02, -6.140213390615e-02, -5.171202985322e-01,
        ),
        second_loss=3.045981655405e+00,
        second_norm=1.215418224604e+00,
        moved=(
            2.892993440961e-02, -9.825069679386e-02, 9.504593782991e-02, 1.927824623201e-01,
            9.542569114540e-02,
        ),
    ),
    "amtml odd": Golden(
        loss=3.097831429499e+00,
        norm=2.580479143906e+00,
        gradient=(
            -1.418553657129e-01, 2.736565821145e-03, -1.987259186341e-02, 1.217738918907e-01,
            -4.433021928270e-02, -1.944575213834e-02, 8.822722556999e-03, 8.251827525463e-03,
            3.438779714400e-02, 2.435642975058e-02, 3.647480997215e-02, -1.695524619332e-01,
            1.620965034463e-01, 1.051024844555e-02, -4.768013102036e-02, -2.748316296585e-01,
            -1.199421729402e-01, 2.674865122384e-02, 1.195413283524e-02, 2.446771652995e-01,
            -2.890146497501e-02, 9.717832213038e-02, 4.261192189960e-01, -8.770485404425e-01,
            -1.707343398319e-01, -7.574380075324e-03, -2.684427349134e-02, -2.795507029581e-03,
            -9.917209887212e-03, -1.983891544912e-02, -3.517633119035e-03, 1.591435122230e-02,
            -3.491438321879e-02, -2.345983486130e-03, -8.370771034741e-04, -7.484510440882e-02,
            -1.585635189726e-03, -2.310023458685e-03, 1.236871518084e-01,
        ),
        second_loss=2.573155885711e+00,
        second_norm=1.641633315390e+00,
        moved=(
            2.866739215210e-01, -2.628543416291e-02, 2.859836453841e-02, 2.441610222118e-01,
            -2.842939156943e-02,
        ),
    ),
}


def draw_episodes(draw_dialogue, informed):
    rng = np.random.default_rng(1)
    sides = []
    for _ in range(2 * PERSONAS):
        dialogue = draw_dialogue(rng, rng.integers(1, 4), VOCABULARY)
        if informed:
            dialogue = [
                dataclasses.replace(e, context=e.persona[:-1] + e.context) for e in dialogue
            ]
        sides.append(pack(dialogue, SHAPE, TILES))
    return Episode(stack(sides[::2]), stack(sides[1::2]))


def stacked(params):
    """The layers of encoder and decoder as one, leaves along a leading axis."""
    layers = {name: params[name] for name in ("encoder", "decoder")}
    return {
        **params,
        **{name: jax.tree.map(lambda *x: np.stack(x), *some) for name, some in layers.items()},
    }


def draw_weights(seed):
    """(parameters, the same stacked)."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: transformer.init(jax.random.key(0), VOCABULARY, MODEL))
    drawn = jax.tree.map_with_path(
        lambda path, x: 0.3 * rng.standard_normal(x.shape) + (path[-1].key == "scale"),
        stacked(jax.tree.map(lambda x: np.zeros(x.shape), shapes)),
    )
    params = dict(drawn)
    for name, count in (("encoder", MODEL.encoder_layers), ("decoder", MODEL.decoder_layers)):
        params[name] = [jax.tree.map(lambda x: x[i], drawn[name]) for i in range(count)]
    return params, drawn


@functools.cache
def compiled_step(phase, mesh):
    """Returns a compiled `outer_step` of (state, episodes) that also returns its gradient."""

    def step(state, episodes):
        taken = []

        def gradient(*args, **settings):
            taken.append(mean_gradient(*args, **settings))
            return taken[-1]

        with mock.patch.object(outer, "mean_gradient", gradient):
            state, metrics = outer.outer_step(
                state, episodes, RATES, phase=phase, config=CONFIG, placement=Placement(mesh)
            )
        return state, metrics, taken[0][0]

    return jax.jit(step)


def products(tree, probe):
    return jax.tree.map(np.vdot, stacked(jax.device_get(tree)), probe)


@pytest.mark.long  # half a minute each to compile; test_textbook.py holds a step against plain JAX
@pytest.mark.parametrize("name", GOLDEN)
def test_two_outer_steps(name, draw_dialogue):
    strategy, _, parity = name.partition(" ")
    mesh = persona_mesh(PERSONAS)
    episodes = split_personas(draw_episodes(draw_dialogue, strategy == "std_p"), mesh)
    step = compiled_step(STRATEGIES[strategy].phases[parity == "odd"], mesh)
    params, _ = draw_weights(0)
    _, probe = draw_weights(2)
    begin = replicate(outer.init_state(params), mesh)
    middle, first, gradient = step(begin, episodes)
    end, second, second_gradient = step(middle, episodes)
    moved = products(jax.tree.map(np.subtract, jax.device_get(end.params), params), probe)
    got = Golden(
        loss=first.loss,
        norm=optax.tree.norm(gradient),
        gradient=tuple(jax.tree.leaves(products(gradient, probe))),
        second_loss=second.loss,
        second_norm=optax.tree.norm(second_gradient),
        moved=tuple(sum(jax.tree.leaves(entry)) for _, entry in sorted(moved.items())),
    )
    for field, wanted in GOLDEN[name]._asdict().items():
        np.testing.assert_allclose(getattr(got, field), wanted, rtol=1e-9, err_msg=field)
