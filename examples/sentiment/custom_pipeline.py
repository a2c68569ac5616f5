"""A pipeline of your own, in a dozen lines: "unsure" instead of a label that the classifier hardly believes.

python custom_pipeline.py runs:/RUN_ID/model
"""

import sys
from dataclasses import dataclass

from likewise.pipeline import Classify, DetectLanguage, Pipeline, Respond, Rows, Step, log_model


@dataclass
class Threshold(Step):
    least: float = 0.9

    def run(self, rows: Rows) -> Rows:
        said = zip(rows["label"], rows["score"], strict=True)
        return {"label": [label if score >= self.least else "unsure" for label, score in said]}


if __name__ == "__main__":
    pipeline = Pipeline(DetectLanguage(), Classify(sys.argv[1]), Threshold(least=0.8), Respond())
    print(log_model(pipeline, name="cautious_pipeline").uri)
