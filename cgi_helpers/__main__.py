"""`python -m cgi_helpers STAGE --preset P [--resume|--fresh] [--device D] [--seed N]`: the stages without Jupyter.

By several processes: `torchrun --standalone --nproc_per_node N -m cgi_helpers STAGE ...`, see `parallel`.
"""

import argparse
import sys

from .pipeline import parallel
from .pipeline.artifacts import ArtifactError
from .pipeline.session import start
from .pipeline.stages import FUNCTIONS, run


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m cgi_helpers", description=__doc__)
    parser.add_argument("stage", metavar="STAGE", help=", ".join(FUNCTIONS))
    parser.add_argument("--preset", default=None, help="smoke, laptop (default) or paper")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on from a checkpoint where there is one (the default)")
    how.add_argument("--fresh", action="store_true", help="compute again, ignoring results and checkpoints")
    args = parser.parse_args(arguments)
    try:
        if args.stage not in FUNCTIONS:
            raise ValueError(f"Unknown stage {args.stage!r}: use one of {', '.join(FUNCTIONS)}.")
        with parallel.group():
            run(start(args.preset, args.seed, str(parallel.device(args.device))), args.stage, fresh=args.fresh)
    except (ArtifactError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: run the same command again to go on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
