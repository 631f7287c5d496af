from math import sqrt

from headwater import aggregate, number, parse


class Stats:
    """The state has for each field that was seen [count, mean, min, max, sum of squared differences from the mean]."""

    def __init__(self, settings):
        self.fields = settings.pop("fields", None)
        if not isinstance(self.fields, list) or not all(isinstance(field, str) for field in self.fields):
            raise ValueError("`fields` is no list of names")
        if not self.fields:
            raise ValueError("`fields` is empty: name at least one")
        if len(set(self.fields)) < len(self.fields):
            raise ValueError("`fields` has a name twice")
        if settings:
            raise ValueError(f"unknown settings: {', '.join(settings)}")

    def start(self):
        return {}

    def add(self, state, sample):
        """Takes a sample in. A field that is missing or no number is not counted; a sample with none is refused."""
        values = parse(sample)
        seen = [field for field in self.fields if number(values, field) is not None]
        if not seen:
            raise ValueError(f"no number in any of {self.fields}")
        for field in seen:
            state[field] = including(state.get(field), number(values, field))

    def merge(self, a, b):
        return a | {field: joined(a[field], b[field]) if field in a else b[field] for field in b}

    def finish(self, state, window):
        return {field: report(*state[field]) for field in sorted(state)}


def including(summary, value):
    """Returns the summary with one more number, after Welford, "Note on a method for calculating corrected sums of squares and products", 1962."""
    if summary is None:
        return [1, value, value, value, 0.0]
    count, mean, low, high, deviations = summary
    before = value - mean
    count += 1
    mean += before / count
    return [count, mean, min(low, value), max(high, value), deviations + before * (value - mean)]


def joined(a, b):
    """Returns the summary of both, after Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979."""
    count = a[0] + b[0]
    share = b[0] / count
    apart = b[1] - a[1]
    deviations = a[4] + (b[4] + apart * apart * a[0] * share)
    return [count, a[1] + apart * share, min(a[2], b[2]), max(a[3], b[3]), deviations]


def report(count, mean, low, high, deviations):
    return {"count": count, "mean": mean, "min": low, "max": high, "stddev": sqrt(deviations / count)}


WitWorld = aggregate(Stats)
