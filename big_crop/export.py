r"""Writes a run's model with PyTorch's names, for tools that read those.

    python -m big_crop.export --workdir RUN --out FILE.safetensors

The names are torchvision's for a ResNet and timm's for other models. Of a
contrastive or masked autoencoding run, only the encoder is written, which has
no head. If the run has averaged weights, these are written.
"""

from big_crop.runtime import commands, stop

if __name__ == "__main__":
  stop.listen()

from big_crop.runtime import outputs
from pp_ops.errors import UserError


def main(argv=None):
  """Runs the command."""
  parser = commands.parser(__doc__, allow_abbrev=False)
  parser.add_argument("--workdir", required=True, help="of the run")
  parser.add_argument("--out", required=True, metavar="FILE.safetensors")
  args = parser.parse_args(argv)
  outputs.check_file(args.out, "--out")
  if not args.out.endswith(".safetensors"):
    raise UserError(f"--out {args.out}: need a name that ends in .safetensors")
  try:
    from safetensors.numpy import save_file
  except ImportError as e:
    raise UserError(
      "export writes with the package safetensors: pip install safetensors"
    ) from e
  import jax

  from big_crop import parts
  from big_crop.weights import torch_names

  run = parts.open_run(args.workdir)
  beside = getattr(run.objective.model, "beside", None)
  variables = {
    collection: {k: v for k, v in tree.items() if k != beside}
    for collection, tree in jax.device_get(run.variables).items()
  }
  weights = torch_names.to_torch(run.objective.model, variables)
  stop.hold()  # From here Ctrl-C waits, so that the file is complete.
  save_file(weights, args.out)
  size = sum(w.nbytes for w in weights.values())
  print(f"{args.out}: {len(weights)} arrays, {size / 1e6:.1f} MB")


if __name__ == "__main__":
  with commands.one_line():
    main()
