"""Requests of a store, noted in the order in which they are made."""


def note_fetches(store, monkeypatch):
    """Return a list that gets the key of each object whose bytes are fetched from the stores of this kind."""
    fetched, stream = [], type(store)._stream

    def noted(self, stored):
        fetched.append(stored.key)
        yield from stream(self, stored)

    monkeypatch.setattr(type(store), "_stream", noted)
    return fetched


def note_puts(store, monkeypatch):
    """Return a list that gets the key of each put into the stores of this kind."""
    keys, put = [], type(store).put

    def noted(self, key, source, **options):
        keys.append(key)
        return put(self, key, source, **options)

    monkeypatch.setattr(type(store), "put", noted)
    return keys
