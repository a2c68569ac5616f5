"""Wrong options of a deployment on Ray: those that are rejected, and those that Ray reports only when it runs them."""

from __future__ import annotations

from typing import Any


def actor(**options: Any) -> dict[str, Any]:
    return {"ray_actor_options": options}


def runtime(**environment: Any) -> dict[str, Any]:
    return actor(runtime_env=environment)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    (runtime(working_dir="."), "working_dir of runtime_env is '.', a path of this machine", "local:///FOLDER"),
    (runtime(working_dir="/tmp"), "working_dir of runtime_env is '/tmp', a path of this machine", "s3://"),
    (runtime(py_modules=["s3://a/b.zip", "helpers"]), "py_modules of runtime_env is 'helpers', a path", "https://"),
    (runtime(py_modules="helpers"), "py_modules of runtime_env is 'helpers', a path", "https://"),
    (runtime(java_jars=["a.jar"]), "java_jars of runtime_env is 'a.jar', a path", "https://"),
    (runtime(pip="requirements.txt"), "pip of runtime_env is 'requirements.txt', a path", '"pip": ["NAME==VERSION"]'),
    (runtime(uv={"packages": "list.txt"}), "uv of runtime_env is 'list.txt', a path", '"uv": ["NAME==VERSION"]'),
    (runtime(conda="env.yml"), "conda of runtime_env is 'env.yml', a path", "as JSON"),
    (runtime(worknig_dir="s3://a/b.zip"), "runtime_env has no key 'worknig_dir'", "did you mean 'working_dir'?"),
    (runtime(config={"setup_timeout": 9}), "config of runtime_env has no key 'setup_timeout'", "setup_timeout_seconds"),
    (runtime(config={"setup_timeout_seconds": "9"}), "setup_timeout_seconds must be of type int", "docs/ray.md"),
    (runtime(working_dir="s3://a/b"), "Ray rejects the options: .*s3://a/b|zip", "docs/ray.md"),
    (runtime(pip=[1]), "Ray rejects the options: .*pip", "docs/ray.md"),
    (runtime(pip=["a"], conda="b"), "cannot be specified at the same time", "docs/ray.md"),
    (runtime(env_vars={"A": 1}), "Ray rejects the options: .*env_vars", "docs/ray.md"),
    (runtime(env_vars=["A"]), "env_vars of runtime_env is .*not a JSON object", "KEY"),
    (actor(runtime_env="x"), "runtime_env is 'x', not a JSON object", "KEY"),
    (actor(num_cpu=1), "Ray rejects the options: .*num_cpu", "docs/ray.md"),
    (actor(num_cpus="two"), "num_cpus of ray_actor_options is 'two', not a number", "NUMBER"),
    (actor(num_gpus=-1), "num_gpus of ray_actor_options is -1, not a number", "NUMBER"),
    (actor(num_cpus=float("inf")), "num_cpus of ray_actor_options is inf, not a number", "NUMBER"),
    (actor(resources={"lamp": "on"}), "lamp of resources of ray_actor_options is 'on'", "NUMBER"),
    (actor(label_selector={"a": "in("}), "Ray rejects the options: .*label selector", "docs/ray.md"),
    ({"autoscaling_config": {"min_replica": 1}}, "autoscaling_config has no key 'min_replica'", "min_replicas"),
    ({"autoscaling_config": {"min_replicas": "x"}}, "min_replicas of autoscaling_config is 'x'", "NUMBER"),
    ({"autoscaling_config": {"min_replicas": 5, "max_replicas": 2}}, "Ray rejects the options: ", "docs/ray.md"),
    ({"autoscaling_config": {"policy": {"policy_function": "no.such:f"}}}, "No module named 'no'", "docs/ray.md"),
    ({"logging_config": {"level": "INFO"}}, "logging_config has no key 'level'", "log_level"),
    ({"placement_group_bundles": [{"CPU": "x"}]}, "CPU of placement_group_bundles is 'x'", "NUMBER"),
    ({"placement_group_bundles": ["CPU"]}, "placement_group_bundles is 'CPU', not a JSON object", "KEY"),
    ({"placement_group_strategy": "PACK"}, "Ray rejects the options: ", "docs/ray.md"),
    ({"max_replicas_per_node": 0}, "Ray rejects the options: ", "docs/ray.md"),
    ({"max_ongoing_requests": 0}, "Ray rejects the options: ", "docs/ray.md"),
    ({"max_surge_percent": -1}, "Ray rejects the options: ", "docs/ray.md"),
    ({"rolling_update_percentage": 7.0}, "Ray rejects the options: ", "docs/ray.md"),
]

GET_THROUGH: list[tuple[dict[str, Any], str]] = [
    (runtime(working_dir="local:///missing"), "/missing"),
    (runtime(py_modules=["file:///missing.zip"]), "/missing.zip"),
    ({"logging_config": {"logs_dir": "/proc/missing"}}, "/proc/missing"),
]
"""Options that only a node can check, and a part of the message."""
