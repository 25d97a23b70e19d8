"""Training for flat minima: optimisers around a base optimiser, loss terms, averages.

    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model, rho=0.05)

    def closure():
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    optimizer.step(closure)

A method of your own is a subclass with one method, ``direction``; nothing needs to be registered.
``train`` trains a task by a ``Recipe`` and keeps all that is needed to go on.
"""

from landscape.tasks.stability import edge_of_stability
from landscape.training.averaging import EMA, SWA, WASAM
from landscape.training.base import BatchOptimizer, FlatOptimizer, RowOptimizer
from landscape.training.bilateral import BilateralSAM
from landscape.training.edges import sam_edge
from landscape.training.esam import ESAM
from landscape.training.fisher_masked import FisherMaskedSAM
from landscape.training.follow import FollowLearningRate
from landscape.training.friendly import FriendlySAM
from landscape.training.gsam import GSAM
from landscape.training.looksam import LookSAM
from landscape.training.low_pass import LowPassSGD
from landscape.training.methods import BASES, METHODS, TERMS
from landscape.training.micro_batch import MicroBatchSAM
from landscape.training.momentum import MomentumSAM
from landscape.training.noise_stability import NoiseStability
from landscape.training.passes import Passes
from landscape.training.recipe import Recipe
from landscape.training.renyi import RenyiSAM
from landscape.training.sam import ASAM, SAM
from landscape.training.settings import Common
from landscape.training.sparse import DynamicSparseSAM, SparseSAM
from landscape.training.tilted import TiltedSAM
from landscape.training.trainer import Observer, Trained, train
from landscape.training.trajectory import MESA, SAF
from landscape.training.vectors import Vector

__all__ = [
    "ASAM",
    "BASES",
    "EMA",
    "ESAM",
    "GSAM",
    "MESA",
    "METHODS",
    "SAF",
    "SAM",
    "SWA",
    "TERMS",
    "WASAM",
    "BatchOptimizer",
    "BilateralSAM",
    "Common",
    "DynamicSparseSAM",
    "FisherMaskedSAM",
    "FlatOptimizer",
    "FollowLearningRate",
    "FriendlySAM",
    "LookSAM",
    "LowPassSGD",
    "MicroBatchSAM",
    "MomentumSAM",
    "NoiseStability",
    "Observer",
    "Passes",
    "Recipe",
    "RenyiSAM",
    "RowOptimizer",
    "SparseSAM",
    "TiltedSAM",
    "Trained",
    "Vector",
    "edge_of_stability",
    "sam_edge",
    "train",
]
