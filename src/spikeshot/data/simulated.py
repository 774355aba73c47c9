"""Simulated recordings are made once: they are kept in the cache folder under their recipe."""

import hashlib
from collections.abc import Callable

from spikeshot.data.recordings import Recordings


def made_once(name: str, recipe: object, make: Callable[[], Recordings]) -> Recordings:
    """Return the recordings of `recipe` from the cache, or make them and keep them there.

    The repr of `recipe` must hold all that the recordings depend on, a digest of the source and
    the version of the simulation among them.
    """
    from spikeshot.data.corpora import _read_cache, _write_cache, cache_folder  # corpora needs this

    key = hashlib.blake2b(repr(recipe).encode(), digest_size=8).hexdigest()
    cached = cache_folder() / f"{name}-{key}.npz"
    recordings = _read_cache(cached)
    if recordings is None:
        recordings = make()
        _write_cache(cached, recordings)
    return recordings
