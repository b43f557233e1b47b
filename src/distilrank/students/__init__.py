"""Students: the model that learns, how it learns, and its scores.

`train` takes a file of triplets or training groups and a model folder, and writes a model folder that every tool opens.
"""

from distilrank.students.train import TrainResult, TrainSettings, train

__all__ = ["TrainResult", "TrainSettings", "train"]
