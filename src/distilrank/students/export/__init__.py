"""A trained student as other runtimes read it: ONNX, int8, OpenVINO, or safetensors in another precision.

Each export is compared with the model that it was made from before it appears under its name.
"""

from distilrank.students.export.export import FORMATS, RECORD, ExportSettings, export
from distilrank.students.export.parity import Parity, parity_groups

__all__ = ["FORMATS", "RECORD", "ExportSettings", "Parity", "export", "parity_groups"]
