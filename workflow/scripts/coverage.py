"""How often the 95 % interval of a paired difference in FD covers the truth, by simulated Gaussians (csv, one row a case)."""

from _cli import arguments
from cachebench.files import atomic
from cachebench.metrics import simulation

args = arguments(__doc__, "trials", "out", "seed?")

rows = [case | simulation.coverage(**case, trials=int(args.trials), seed=int(args.seed or 0)) for case in simulation.CASES]
atomic.write_csv(args.out, rows)
for row in rows:
    print(", ".join(f"{key} {value:.3g}" for key, value in row.items()))
