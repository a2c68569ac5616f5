"""A pipeline with a custom step, which replaces labels with a low score by "unsure".

python custom_pipeline.py runs:/RUN_ID/model
"""

import sys
from dataclasses import dataclass

from likewise.pipeline import Classify, DetectLanguage, Pipeline, Respond, Rows, Step, log_model


@dataclass
class Threshold(Step):
    needs = ("label", "score")
    gives = ("label",)
    minimum: float = 0.9

    def run(self, rows: Rows) -> Rows:
        pairs = zip(rows["label"], rows["score"], strict=True)
        return {"label": [label if score >= self.minimum else "unsure" for label, score in pairs]}


if __name__ == "__main__":
    pipeline = Pipeline(DetectLanguage(), Classify(sys.argv[1]), Threshold(minimum=0.8), Respond())
    print(log_model(pipeline, name="cautious_pipeline").uri)
