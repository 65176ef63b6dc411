"""Caches what Beam 2.77 computes again for every transform, half of a pipeline's time if there is little data.

Beam parses the pipeline's flags wherever it reads an option, with a parser that it builds with all help texts; and it inspects the
signature of every method of every DoFn some seven times. Importing this module caches both.
"""

import types
from copy import deepcopy
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core

_parsed: dict[tuple[type, tuple[str, ...]], Any] = {}
_parse = PipelineOptions.__init__
_arguments: WeakKeyDictionary[Any, tuple[list[str], list[Any]]] = WeakKeyDictionary()
_inspect = core.get_function_args_defaults


def _options(self: Any, flags: Any = None, **overrides: Any) -> None:
    """Replace Beam's own method, which documents the arguments."""
    if not isinstance(flags, list):  # the process's flags, which may change
        _parse(self, flags, **overrides)
        return
    key = (type(self), tuple(flags))
    if key not in _parsed:
        _parse(self, flags, **overrides)
        _parsed[key] = deepcopy(self._visible_options)
        return
    self._flags = flags
    self._visible_options = deepcopy(_parsed[key])
    self._all_options = overrides
    for name in self._visible_option_list():
        if name not in overrides:
            overrides[name] = getattr(self._visible_options, name)


def _arguments_and_defaults(function: Any) -> tuple[list[str], list[Any]]:
    """Replace Beam's own function. The arguments of a method depend on its class, not on the object."""
    if not isinstance(function, types.MethodType):
        return _asked(function)
    signature = _arguments.get(function.__func__)
    if signature is None:
        signature = _arguments[function.__func__] = _asked(function)
    return [*signature[0]], [*signature[1]]


def _asked(function: Any) -> tuple[list[str], list[Any]]:
    return _inspect(function)


PipelineOptions.__init__ = _options
core.get_function_args_defaults = _arguments_and_defaults
