"""Scores of anything that runs the graph, a checkpoint in PyTorch or an exported bundle: on rendered crops, on datasets."""

from glnet_train.scores.annotated import EvaluationProtocol, load_regressor, score_dataset
from glnet_train.scores.rendered import Evaluation, evaluate

__all__ = ["Evaluation", "EvaluationProtocol", "evaluate", "load_regressor", "score_dataset"]
