"""Update rules against timm's and PyTorch's, through the whole chain."""

import functools

import numpy as np
import optim_helpers as helpers
import pytest

torch = pytest.importorskip("torch")
timm_optim = pytest.importorskip("timm.optim")
timm_agc = pytest.importorskip("timm.utils.agc")


def to_torch(name, x):
  """Transposes to PyTorch's layouts, whose first axis is the output's."""
  if name == "query/kernel":
    x = x.reshape(len(x), -1)
  if name == "out/kernel":
    x = x.reshape(-1, x.shape[-1])
  if name == "query/bias":
    x = x.reshape(-1)
  if name.endswith("kernel"):
    x = np.moveaxis(x, -1, 0)
    if x.ndim == 4:
      x = np.moveaxis(x, -1, 1)
  return torch.tensor(np.ascontiguousarray(x))


def peer(make_optimizer, clip=lambda tensors: None):
  """Yields the parameters after each step of timm's training loop."""
  tensors = {n: to_torch(n, p) for n, p in helpers.parameters().items()}
  groups = [
    {
      "params": [tensor],
      "weight_decay": helpers.WD * helpers.mult(name, helpers.WD_MULTS),
    }
    for name, tensor in tensors.items()
  ]
  optimizer = make_optimizer(groups)
  for step in range(helpers.STEPS):
    for group, name in zip(optimizer.param_groups, tensors, strict=True):
      lr_mult = helpers.mult(name, helpers.LR_MULTS)
      group["lr"] = helpers.LR * lr_mult * helpers.factor(step)
    grads = yield
    for name, tensor in tensors.items():
      tensor.grad = to_torch(name, grads[name])
    clip(tensors)
    optimizer.step()
    yield {name: tensor.numpy() for name, tensor in tensors.items()}


def clip_all_but_the_head(factor, tensors):
  timm_agc.adaptive_clip_grad(
    [t for name, t in tensors.items() if not name.startswith("head")], factor
  )


SGD = functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9)
NESTEROV = {"decay": 0.9, "nesterov": True}
CASES = {
  "lamb": (
    dict(optax_name="scale_by_lamb", wd_in="rule"),
    functools.partial(timm_optim.Lamb, max_grad_norm=None),
  ),
  "lamb, clipped as by default": (
    dict(optax_name="scale_by_lamb", wd_in="rule", grad_clip_norm=1.0),
    timm_optim.Lamb,
  ),
  "lamb, all adapted": (
    dict(
      optax_name="scale_by_lamb",
      optax=dict(b1=0.8, b2=0.95, always_adapt=True),
      wd_in="rule",
    ),
    functools.partial(
      timm_optim.Lamb,
      betas=(0.8, 0.95),
      always_adapt=True,
      max_grad_norm=None,
    ),
  ),
  "lars": (
    dict(
      optax_name="scale_by_lars",
      optax=dict(trust_coefficient=0.1),
      wd_in="rule",
    ),
    functools.partial(timm_optim.Lars, momentum=0.9, trust_coeff=0.1),
  ),
  "nlars, all": (
    dict(
      optax_name="scale_by_lars",
      optax=dict(nesterov=True, always_adapt=True, trust_coefficient=0.1),
      wd_in="rule",
    ),
    functools.partial(
      timm_optim.Lars,
      momentum=0.9,
      nesterov=True,
      always_adapt=True,
      trust_coeff=0.1,
    ),
  ),
  "adamp": (
    dict(optax_name="scale_by_adamp", wd_in="rule"),
    timm_optim.AdamP,
  ),
  "adamp, timm's name": (
    dict(
      optax_name="scale_by_adamp",
      optax=dict(wd_ratio=0.01, nesterov=True),
      wd_in="rule",
    ),
    functools.partial(timm_optim.AdamP, wd_ratio=0.01, nesterov=True),
  ),
  "rmsproptf": (
    dict(
      optax_name="scale_by_rmsprop_tf", optax=dict(eps=1e-3), wd_in="gradient"
    ),
    functools.partial(timm_optim.RMSpropTF, eps=1e-3, momentum=0.9),
  ),
  "rmsproptf, lr after": (
    dict(
      optax_name="scale_by_rmsprop_tf",
      optax=dict(decay=0.95, lr_in_momentum=False),
      wd_in="gradient",
    ),
    functools.partial(
      timm_optim.RMSpropTF, alpha=0.95, momentum=0.9, lr_in_momentum=False
    ),
  ),
  "rmsproptf, no momentum": (
    dict(
      optax_name="scale_by_rmsprop_tf",
      optax=dict(momentum=0.0),
      wd_in="gradient",
    ),
    timm_optim.RMSpropTF,
  ),
  "sgd": (
    dict(optax_name="trace", optax=NESTEROV, wd_in="gradient"),
    functools.partial(SGD, nesterov=True),
  ),
  "momentum, clipped": (
    dict(
      optax_name="trace",
      optax={"decay": 0.9},
      wd_in="gradient",
      grad_clip_norm=2.0,
    ),
    SGD,
    lambda tensors: torch.nn.utils.clip_grad_norm_(tensors.values(), 2.0),
  ),
  "sgd, agc": (
    dict(
      optax_name="trace",
      optax=NESTEROV,
      wd_in="gradient",
      agc=0.3,
      agc_exclude=["head/.*"],
    ),
    functools.partial(SGD, nesterov=True),
    functools.partial(clip_all_but_the_head, 0.3),
  ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.first(6)
def test_twenty_steps(case):
  rule, *theirs = CASES[case]
  loop = peer(*theirs)
  layout = lambda tree: {n: to_torch(n, p).numpy() for n, p in tree.items()}
  for grads, params in helpers.run(rule):
    next(loop)
    expected = loop.send(grads)
    got, start = layout(params), layout(helpers.parameters())
    helpers.assert_same_steps(got, expected, start)
