"""Whether an object in the cluster is as it should be; pure.

What others add is left alone: only what is asked for is compared, as the API server stores it (quantities in normal
form, lists of named items by their names).
"""

from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from embedding_operator.observed import Object

# The keys by which the API server merges lists of mappings; source: the merge keys of core/v1 and apps/v1.
_KEYS = {
    "containers": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "port", "protocol"),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_QUANTITIES = frozenset({"requests", "limits", "sizeLimit", "divisor", "averageValue"})
# What the API server replaces as a whole: an entry beside ours changes what ours mean.
_WHOLE = frozenset({"selector", "nodeSelector"})
# Texts under keys that people choose, which are no fields' names.
_TEXTS = frozenset({"annotations", "data", "labels", "matchLabels"})
# What says something even where it is empty.
_SOURCES = frozenset({"emptyDir"})


def differs(desired: Object, live: Object | None) -> bool:
    """Whether an object has to be applied: missing, hand-edited, or last applied from something else."""
    if live is None:
        return True
    # What it was applied from is an annotation like others (``names.APPLIED``).
    # It was asked for by its kind, which a list leaves out of its items.
    return not all(_holds(desired[part], live.get(part), part) for part in desired.keys() - {"apiVersion", "kind"})


def _holds(desired: Any, live: Any, name: str) -> bool:
    """Whether all of ``desired`` is in ``live``; ``name`` is the field's."""
    if live is None:
        # The API server stores no empty text, list or mapping.
        return desired in (None, "", [], {}) and name not in _SOURCES
    if name in _TEXTS:
        return bool(desired.items() <= live.items())
    if name in _QUANTITIES:
        return _same_quantities(desired, live)
    if isinstance(desired, dict) and name not in _WHOLE:
        return isinstance(live, dict) and all(_holds(value, live.get(key), key) for key, value in desired.items())
    if isinstance(desired, list):
        return _holds_list(desired, live, name)
    return bool(desired == live)


def _holds_list(desired: list[Any], live: Any, name: str) -> bool:
    keys = _KEYS.get(name)
    if keys is None:
        # An atomic list: nobody else's items can be in it.
        return len(desired) == len(live) and all(
            _holds(wanted, found, "") for wanted, found in zip(desired, live, strict=True)
        )
    by_key = {_identity(found, keys): found for found in live}
    return all(
        _identity(wanted, keys) in by_key and _holds(wanted, by_key[_identity(wanted, keys)], "") for wanted in desired
    )


def _identity(item: Object, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys)


def _same_quantities(desired: Any, live: Any) -> bool:
    if isinstance(desired, dict):
        return all(key in live and _quantity(value) == _quantity(live[key]) for key, value in desired.items())
    return _quantity(desired) == _quantity(live)


def _quantity(value: str | int) -> Decimal:
    return Decimal(parse_quantity(value))
