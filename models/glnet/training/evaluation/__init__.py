"""Scores of anything that runs the graph, a checkpoint in PyTorch or an exported bundle: on rendered crops, on datasets."""

from glnet.training.evaluation.annotated import EvaluationProtocol, load_regressor, score_dataset
from glnet.training.evaluation.rendered import Evaluation, evaluate

__all__ = ["Evaluation", "EvaluationProtocol", "evaluate", "load_regressor", "score_dataset"]
