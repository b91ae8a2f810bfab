"""Every family: architecture of `config.json` -> how its models are written."""

from alignment.models.huggingface.family import Family

FAMILIES: dict[str, Family] = {}
