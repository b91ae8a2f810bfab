"""Packaging; the version is read from `alignment/__init__.py`."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
  r"^__version__ = '(.+)'$",
  (ROOT / 'alignment' / '__init__.py').read_text(encoding='utf-8'),
  re.MULTILINE,
).group(1)

BASE = [
  'absl-py>=2.1',
  'chex>=0.1.90,<0.2',
  'flax>=0.12.8,<0.13',
  'grain>=0.2.15,<0.3',
  'jax>=0.10.2,<0.13',
  'jinja2>=3.1.6',
  'matplotlib>=3.9',
  'numpy>=2.0',
  'optax>=0.2.6,<0.3',
  'orbax-checkpoint>=0.12.8,<0.13',
  'pyarrow>=18',
  'rich>=13',
  'scipy>=1.14',
  'tensorboardX>=2.6.2',
  'tensorflow-datasets>=4.9.8',
  'threadpoolctl>=3.5',
  'tokenizers>=0.21',
]
EXTRAS = {
  'test': [
    'hypothesis>=6.100',
    'pytest>=8',
    'pytest-xdist>=3.6',
    'ruff>=0.9',
    'safetensors>=0.5',
  ],
  'cuda12': ['jax[cuda12]>=0.10.2,<0.13'],
  'tpu': ['jax[tpu]>=0.10.2,<0.13'],
  'notebooks': ['ipykernel', 'jupytext', 'nbclient', 'nbformat'],
  'peers': [
    'cleanlab>=2.9',
    'crowd-kit>=1.4.1',
    'pandas>=2.2',
    'peft>=0.17',
    'scikit-learn>=1.5',
    'torch>=2.8',
    'transformers>=5',
    'trl>=1.16',
  ],
}

setup(
  name='superalignment',
  version=VERSION,
  description='Aligning models from labels that cannot be trusted, in JAX',
  long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  classifiers=[
    'Intended Audience :: Science/Research',
    'Programming Language :: Python :: 3 :: Only',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
  packages=find_packages(include=['alignment*', 'experiments*', 'launch*']),
  python_requires='>=3.11',
  install_requires=BASE,
  extras_require=EXTRAS,
)
