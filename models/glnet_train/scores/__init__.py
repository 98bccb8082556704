"""Scores of a network, on rendered crops or on datasets.

Anything that runs the graph is scored alike: a checkpoint in PyTorch or an exported bundle.
"""

from glnet_train.scores.annotated import EvaluationProtocol, load_regressor, score_dataset
from glnet_train.scores.choices import CHOICES, score_choices
from glnet_train.scores.rendered import Evaluation, evaluate

__all__ = ["CHOICES", "Evaluation", "EvaluationProtocol", "evaluate", "load_regressor", "score_choices", "score_dataset"]
