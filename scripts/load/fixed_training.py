"""Training with chunks of the declared size, also in the children. Apart from `fixed`: it needs no database."""

from __future__ import annotations

from typing import Any

from jobs.training import PrepareTrainingRowsJob, TrainMLModelJob


class FixedPreparation(PrepareTrainingRowsJob):
    adaptive = False


class FixedTraining(TrainMLModelJob):
    adaptive = False

    def split_into_child_jobs(self, data: Any, *_: Any, **options: Any) -> int:
        return super().split_into_child_jobs(data, FixedPreparation, **options)
