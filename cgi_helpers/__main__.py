"""`python -m cgi_helpers STAGE [ROW] --preset P [--resume|--fresh] [--device D] [--seed N]`: stages without Jupyter.

`python -m cgi_helpers inpaint PHOTO --mask HOLE --out FILLED` fills a hole with trained networks, see `inpaint --help`.
By several processes: `torchrun --standalone --nproc_per_node N -m cgi_helpers STAGE ...`, see `pipeline.parallel`.
"""

import argparse
import sys

from .pipeline import parallel
from .pipeline.artifacts import ArtifactError
from .pipeline.plan import KINDS
from .pipeline.session import start
from .pipeline.stages import run


def main(arguments=None):
    """Exit code of one command; errors that the user can mend become one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "inpaint":
        from . import inpaint_cli

        return inpaint_cli.main(arguments[1:])
    stages = "\n".join(f"  {kind:12} {line}" for kind, line in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m cgi_helpers",
        description=__doc__,
        epilog=f"stages:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "stage", nargs="+", metavar="STAGE", help="a stage and, for some, a row of the preset: train, encode best, ..."
    )
    parser.add_argument("--preset", default=None, help="smoke, laptop (default), desktop, mnist, paper, ...")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on from a checkpoint where there is one (the default)")
    how.add_argument("--fresh", action="store_true", help="compute again, ignoring results and checkpoints")
    args = parser.parse_args(arguments)
    try:
        with parallel.group():
            session = start(args.preset, args.seed, str(parallel.device(args.device)))
            run(session, " ".join(args.stage), fresh=args.fresh)
    except (ArtifactError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: run the same command again to go on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
