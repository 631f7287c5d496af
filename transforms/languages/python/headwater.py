"""The SDK for Headwater modules in Python: the calls of the contract, which come in batches, become one function per
event. An event that cannot be used is a raised error: it goes to the dead letters with the error's message.

The agent may throw an instance away at any moment: data that must last belongs in an aggregate's state. There is no network,
no file and no clock (`time.time()` ends the call), and `random` gives the same numbers in each instance, so that a
recomputation gives the same result.
"""

import json
import math
import re
import sys
from dataclasses import replace
from json.decoder import scanstring

from componentize_py_types import Err
from wit_world.imports import logging, types


def transform(configure):
    """Makes the class `WitWorld` of a function from the settings to the function for one event, which returns that
    event, None, or a list of events (or anything else that gives events one by one)."""

    each = None

    class Transform:
        # Each call comes to a new object of this class.
        def init(self, config):
            nonlocal each
            sys.stdout = sys.stderr = _Lines()
            each = _refusing(lambda: configure(_settings(config)))

        def process(self, events):
            made = []

            def one(event):
                # All of them are checked before the first is taken: an event that is rejected gives none.
                made.extend([_checked(one) for one in _listed(each(event))])

            rejected = _sift(events, one)
            return types.Processed(made, rejected)

    return Transform


def aggregate(configure):
    """Makes the class `WitWorld` of a function from the settings to an object with the four functions `start()`, `add(state,
    sample)`, `merge(a, b)` and `finish(state, window)`. A state and a result are anything that JSON can say; times are in
    microseconds since the Unix epoch."""
    of = None

    def read(state):
        return _decode(state.decode(), _STATE) if state else of.start()

    def updated(group):
        state = read(group.state)
        rejected = _sift(group.samples, lambda sample: of.add(state, sample))
        return types.Updated(_kept(state), rejected)

    class Aggregate:
        def init(self, config):
            nonlocal of
            sys.stdout = sys.stderr = _Lines()
            of = _refusing(lambda: configure(_settings(config)))

        def update(self, groups):
            return _refusing(lambda: [updated(group) for group in groups])

        def merge(self, a, b):
            return _refusing(lambda: _kept(of.merge(read(a), read(b))))

        def finish(self, windows):
            return _refusing(lambda: [_result(of.finish(read(window.state), window)) for window in windows])

    return Aggregate


def parse(event):
    """Returns the payload of an event or a sample, which has to be a JSON object."""
    text = event.payload.decode()
    try:
        value = _decode(text)
    except ValueError as error:
        raise ValueError(f"not a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {text:.40}")
    return value


def number(values, field):
    """Returns the number in a field of a parsed payload; None if it is missing or no finite number."""
    return _finite(values.get(field))


def map_number(event, field, change):
    """Returns the event with another number in the field; all else stays as it is, to the character. A field that is
    missing, there twice or no number is a ValueError."""
    value = parse(event)
    if field not in value:
        raise ValueError(f"field `{field}` is missing")
    text = event.payload.decode()
    start, end = _place(text, field)
    found = _finite(value[field])
    if found is None:
        raise ValueError(f"field `{field}` is not a number: {text[start:end]:.40}")
    return replace(event, payload=f"{text[:start]}{_digits(field, change(found))}{text[end:]}".encode())


def set_number(event, field, number):
    """Returns the event with that number in the field, which is added if it is not there; all else stays as it is. A
    field that is there twice is a ValueError."""
    written = _digits(field, number)
    value = parse(event)
    text = event.payload.decode()
    if field in value:
        start, end = _place(text, field)
    else:
        start = end = text.rindex("}")
        written = f"{',' if value else ''}{json.dumps(field, ensure_ascii=False)}:{written}"
    return replace(event, payload=f"{text[:start]}{written}{text[end:]}".encode())


class log:
    """Lines in the agent's log."""

    def debug(message):
        logging.log(logging.Level.DEBUG, message)

    def info(message):
        logging.log(logging.Level.INFO, message)

    def warn(message):
        logging.log(logging.Level.WARN, message)

    def error(message):
        logging.log(logging.Level.ERROR, message)


_FOLDER, _, _FILE = __file__.rpartition("/")


class _Lines:
    """Takes printed lines to the log: standard output has nothing behind it, but when the module is built."""

    rest = ""

    def write(self, text):
        *lines, self.rest = f"{self.rest}{text}".split("\n")
        for line in lines:
            _info(line)
        if len(self.rest) > 1000:
            self.flush()

    def flush(self):
        _info(self.rest)
        self.rest = ""


def _info(line):
    if line.strip():
        log.info(line.rstrip())


def _not_json(name):
    raise ValueError(f"{name} is no JSON")


# Whole numbers have no bound here, and one of a million digits would take minutes.
_JSON = json.JSONDecoder(parse_constant=_not_json, parse_int=lambda digits: int(digits) if len(digits) < 400 else math.inf)
_STATE = json.JSONDecoder()
# The parser calls itself at each level, and the stack is the agent's to bound.
_NESTING_MAX = 200
_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL).finditer
_BLANK = re.compile(r"[ \t\n\r]*").match
_MARK = re.compile(r"[ \t\n\r]*[:,{][ \t\n\r]*").match


def _decode(text, decoder=_JSON):
    if text.count("[") + text.count("{") > _NESTING_MAX:
        depth = 0
        for mark in _BRACKET(text):
            depth += mark[0] in ("[", "{")
            depth -= mark[0] in ("]", "}")
            if depth > _NESTING_MAX:
                raise ValueError(f"nested more than {_NESTING_MAX} levels deep")
    return decoder.decode(text)


def _settings(config):
    settings = _decode(config)
    if not isinstance(settings, dict):
        raise ValueError("the settings are no JSON object")
    return settings


def _digits(field, number):
    if not math.isfinite(number):
        raise ValueError(f"field `{field}` would become {number}")
    return repr(float(number))


def _finite(value):
    if type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            return None
    return value if type(value) is float and math.isfinite(value) else None


def _place(text, field):
    """Returns start and end of the value of the object's only member of that name. The text is JSON."""
    found = None
    at = _BLANK(text).end()
    while text[at] in "{,":
        name, at = scanstring(text, _MARK(text, at).end() + 1, True)
        start = _MARK(text, at).end()
        _, end = _JSON.scan_once(text, start)
        if name == field:
            if found:
                raise ValueError(f"field `{field}` is there twice")
            found = start, end
        at = _BLANK(text, end).end()
    return found


def _listed(made):
    """The events that an author's function returned."""
    if made is None:
        return ()
    return (made,) if isinstance(made, types.Event) else made


def _checked(event):
    """Returns the event, whose types are right: a wrong one would end the call without a word."""
    if not isinstance(event, types.Event):
        raise TypeError(f"expected an event, a list of events or None, found {event!r:.40}")
    texts = isinstance(event.topic, str) and isinstance(event.key, str)
    if not (texts and type(event.time) is int and 0 <= event.time < 1 << 64 and isinstance(event.payload, bytes)):
        raise TypeError("`topic` and `key` are str, `time` is int in microseconds, `payload` is bytes")
    f"{event.topic}{event.key}".encode()
    return event


def _sift(inputs, each):
    """Calls the function with each input, and returns the rejections."""
    rejected = []
    for index, one in enumerate(inputs):
        try:
            each(one)
        except Exception as error:
            rejected.append(types.Rejection(index, _reason(error)))
    return rejected


def _refusing(call):
    """Returns what the call returns, and makes an error the contract's, which is an `Err`."""
    try:
        return call()
    except Exception as error:
        raise Err(_reason(error)) from None


def _reason(error):
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error}"
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}{_place_of(error)}"


def _place_of(error):
    """Returns the last line of the author's own that the error came through."""
    place, at = "", error.__traceback__
    while at:
        folder, _, file = at.tb_frame.f_code.co_filename.rpartition("/")
        if folder == _FOLDER and file != _FILE:
            place = f" ({file}:{at.tb_lineno})"
        at = at.tb_next
    return place


def _kept(state):
    return json.dumps(state, separators=(",", ":"), ensure_ascii=False).encode()


def _result(value):
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return json.dumps(_nulled(value), ensure_ascii=False).encode()


def _nulled(value):
    """Returns the value with None for numbers that are not finite, which JSON cannot say."""
    if isinstance(value, dict):
        return {name: _nulled(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nulled(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
