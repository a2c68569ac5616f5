"""A batch job in plain Ray Data: `python -m bench.peers.ray_data_job MODEL CSV OUTPUT CPUS`, prints a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import mlflow
import pandas as pd
import ray


class Predict:
    """The model in an actor."""

    def __init__(self, model: str) -> None:
        self.model = mlflow.pyfunc.load_model(model)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        predictions: Any = self.model.predict(batch["text"].tolist())
        return batch.assign(label=predictions["label"].tolist())


def main() -> None:
    """Read, predict and write; the clock starts when Ray runs."""
    model, source, output, cpus = sys.argv[1:]
    one_more = int(cpus) + 1  # the actors hold one each until the end, and reading and writing need one too
    ray.init(address="local", num_cpus=one_more, include_dashboard=False, log_to_driver=False)
    started_at = time.perf_counter()
    rows = ray.data.read_csv(source).repartition(4 * int(cpus))
    done = rows.map_batches(
        Predict, fn_constructor_args=[model], batch_size=64, batch_format="pandas", concurrency=int(cpus), num_cpus=1
    )
    done.write_parquet(output)
    seconds = time.perf_counter() - started_at
    labels = ray.data.read_parquet(output).to_pandas()
    print(
        json.dumps(
            {"rows": len(labels), "seconds": seconds, "labels": dict(zip(labels["text"], labels["label"], strict=True))}
        )
    )


if __name__ == "__main__":
    main()
