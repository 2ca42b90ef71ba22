"""The experiments: settings, training and measuring, results on disk, sweeps."""

from rgnb.study.experiment import Experiment
from rgnb.study.settings import Setting, analysis

__all__ = ["Experiment", "Setting", "analysis"]
