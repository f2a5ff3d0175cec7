"""Every method, set up as the pipeline sets it up, on small networks and after a very short fit."""

from cachebench.desk.contract import Run as Run
from cachebench.desk.contract import chosen as chosen
from cachebench.desk.contract import fit as fit
from cachebench.plugin import loader

METHODS = [one for stem in loader.available() for one in loader.ids(stem)]
METHODS += ["fora+taylor2", "fora+final_linear", "l2c+final_linear"]  # forecasts of branches, and of the final hidden state
