"""Learning from labels that cannot be trusted.

A loss takes numbers. A role turns a model into numbers. A protocol lets roles
meet. An experiment is one file that picks a protocol and measures it.
"""

__version__ = '0.1.0'
