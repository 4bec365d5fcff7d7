"""Errors the user can fix: each is one clear line and exit code 2.

In: a message that states *what, where, what is allowed, what to do*. Prints nothing. Imports no other module.

    KmmluError                  caught by every entry point: message on stderr, exit code 2, no traceback
    ├── ConfigError             flags, YAML files, settings that contradict each other
    ├── DataError               a dataset, training file or score file that is missing or malformed
    ├── ModelError              a model or tokenizer that cannot be found or loaded
    ├── AdapterError            an adapter directory that is malformed or does not fit its base
    ├── EngineError             the engine could not start, ran out of memory, or lost a server or replica
    ├── RunError                a run directory that is incomplete, of another fingerprint, or in the way
    ├── TrainError              training that cannot start or must not continue
    └── InstallError            a package that the plain install leaves out
"""

from __future__ import annotations


class KmmluError(Exception):
    """Base class of errors the user can fix. ``str(error)`` is one line that says what to do."""


class ConfigError(KmmluError):
    """Flags, YAML files, or settings that contradict each other."""


class DataError(KmmluError):
    """A dataset, training file or score file that is missing or malformed; names the file and row."""


class ModelError(KmmluError):
    """A model or tokenizer that cannot be found or loaded."""


class AdapterError(KmmluError):
    """An adapter directory that is malformed or does not fit its base model."""


class EngineError(KmmluError):
    """The engine could not start, ran out of memory, or lost its server or replica."""


class RunError(KmmluError):
    """A run directory that is incomplete, of another fingerprint, or in the way."""


class TrainError(KmmluError):
    """Training that cannot start or must not continue."""


class InstallError(KmmluError):
    """A package that the plain install leaves out; names the extra that installs it."""
