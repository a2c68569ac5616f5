import cpuplug

import likewise.spark

pytest_plugins = ("tests.support.spark.fixtures",)


def test_a(spark, logging_model):
    import mlflow.pyfunc

    frame = spark.createDataFrame([(0, "good")], "id int, text string").repartition(1)

    def step(name, f):
        c = cpuplug.cpu()
        r = f()
        print(f"{name}: {cpuplug.cpu() - c:.1f}")
        return r

    step("warm", lambda: frame.mapInArrow(lambda b: b, "id int, text string").collect())
    for k in ("long", "string", "double"):
        ours = step(k + " ours udf", lambda: likewise.spark.udf(spark, logging_model, k))
        step("ours first", lambda: frame.select(ours("text")).collect())
        step("ours again", lambda: frame.select(ours("text")).collect())
        step("ours collect", lambda: frame.select(ours("text")).collect())
        theirs = step(
            "theirs udf", lambda: mlflow.pyfunc.spark_udf(spark, str(logging_model.model_path), result_type=k)
        )
        step("theirs first", lambda: frame.select(theirs("text")).collect())
        step("theirs again", lambda: frame.select(theirs("text")).collect())
