"""The methods by name: optimisers, terms of the loss, and the base optimisers alone."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from landscape.training.averaging import EMA, SWA, WASAM
from landscape.training.base import FlatOptimizer
from landscape.training.bilateral import BilateralSAM
from landscape.training.esam import ESAM
from landscape.training.fisher_masked import FisherMaskedSAM
from landscape.training.friendly import FriendlySAM
from landscape.training.gsam import GSAM
from landscape.training.looksam import LookSAM
from landscape.training.low_pass import LowPassSGD
from landscape.training.micro_batch import MicroBatchSAM
from landscape.training.momentum import MomentumSAM
from landscape.training.noise_stability import NoiseStability
from landscape.training.renyi import RenyiSAM
from landscape.training.sam import ASAM, SAM
from landscape.training.sparse import DynamicSparseSAM, SparseSAM
from landscape.training.tilted import TiltedSAM
from landscape.training.trajectory import MESA, SAF

#: The optimisers by the names of their papers.
METHODS: dict[str, type[FlatOptimizer]] = {
    "sam": SAM,
    "asam": ASAM,
    "gsam": GSAM,
    "looksam": LookSAM,
    "m-sam": MicroBatchSAM,
    "friendly-sam": FriendlySAM,
    "momentum-sam": MomentumSAM,
    "ssam-f": SparseSAM,
    "ssam-d": DynamicSparseSAM,
    "fsam": FisherMaskedSAM,
    "esam": ESAM,
    "bsam": BilateralSAM,
    "tsam": TiltedSAM,
    "nso": NoiseStability,
    "rsam": RenyiSAM,
    "lpf-sgd": LowPassSGD,
    "swa": SWA,
    "ema": EMA,
    "wasam": WASAM,
}

#: Terms that are added to the loss, for a base optimiser.
TERMS: dict[str, type[nn.Module]] = {"saf": SAF, "mesa": MESA}

#: The base optimisers, which are methods of their own too.
BASES: dict[str, type[Optimizer]] = {"sgd": SGD, "adamw": AdamW}
