"""Teachers: who answers. Each gives one raw float32 score a (query, passage) pair, never a probability.

A teacher's `identity` says what its scores mean; two scores with the same identity may stand side by side.
"""

from distilrank.teachers.base import Teacher, TeacherIdentity
from distilrank.teachers.build import build_pointwise, build_teacher
from distilrank.teachers.ensemble import Ensemble

__all__ = ["Ensemble", "Teacher", "TeacherIdentity", "build_pointwise", "build_teacher"]
