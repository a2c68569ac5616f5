"""The groups and the examples of commands in their help."""

from __future__ import annotations

GROUPS = {
    "Models": ("bundle", "inspect", "scan", "trust"),
    "On this machine": ("serve", "score", "doctor", "demo"),
    "Deployments": ("deploy", "list", "status", "logs", "history", "predict", "update", "delete"),
    "Comparison": ("verify",),
    "Images and SageMaker": ("image", "rehearse", "transform"),
}

EXAMPLES = {
    "bundle": (
        "likewise bundle models:/reviews/3 -o bundle",
        "likewise bundle runs:/0a1b2c/model -o bundle --trust --accelerate",
    ),
    "inspect": ("likewise inspect bundle", "likewise inspect bundle --measure", "likewise inspect bundle --json"),
    "scan": ("likewise scan models:/reviews/3", "likewise scan model --fail-on dangerous"),
    "trust": ("likewise trust models:/reviews/", "likewise trust --list", "likewise trust --remove models:/reviews/"),
    "serve": (
        "likewise serve bundle -p 5000",
        "likewise serve models:/reviews/3 --host 0.0.0.0 --token-file tokens.txt",
    ),
    "score": (
        "likewise score bundle reviews.csv -o scored.csv",
        "likewise score bundle 's3://bucket/reviews/*.parquet' -o scored/ --runner spark",
    ),
    "deploy": (
        "likewise deploy bundle --to local --name reviews",
        "likewise deploy bundle --to ray --name reviews -C num_replicas=2",
        "likewise deploy bundle --to sagemaker:/eu-west-1 --name reviews --rehearse",
    ),
    "list": ("likewise list", "likewise list --to ray"),
    "status": ("likewise status reviews", "likewise status reviews --json"),
    "logs": ("likewise logs reviews", "likewise logs reviews -f"),
    "history": ("likewise history reviews",),
    "predict": (
        "likewise predict reviews request.json",
        """likewise predict reviews '{"dataframe_records": [{"text": "A good film."}]}'""",
    ),
    "update": (
        "likewise update reviews models:/reviews/4",
        "likewise update reviews -C num_replicas=4",
        "likewise update reviews --to-previous",
    ),
    "delete": ("likewise delete reviews", "likewise delete reviews --plan"),
    "verify": (
        "likewise verify bundle --against reviews --golden reviews.csv",
        "likewise verify bundle --against mlflow --against spark --junit parity.xml",
    ),
    "doctor": ("likewise doctor",),
    "demo": ("likewise demo --quick", "likewise demo -o demo --rows 500"),
    "transform": ("likewise transform bundle s3://bucket/in -o s3://bucket/out --to sagemaker:/eu-west-1",),
    "rehearse": ("likewise rehearse sagemaker:/eu-west-1 -- aws sagemaker list-endpoints",),
    "build": ("likewise image build bundle -t reviews:1",),
    "push": ("likewise image push reviews:1 registry.example.com/reviews:1",),
    "run": ("likewise image run reviews:1 -p 5000",),
    "dockerfile": ("likewise image dockerfile bundle -o context",),
}
"""By command; the commands of `image` by the last word."""


def group(command: str) -> str:
    """The title of the group that a command belongs to."""
    return next(title for title, commands in GROUPS.items() if command in commands)


def epilog(command: str) -> str:
    """The end of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[command])])  # \b: not wrapped
