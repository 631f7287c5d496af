from dataclasses import replace

from headwater import map_number, transform

TO_CELSIUS = {"fahrenheit": lambda t: (t - 32) / 1.8, "kelvin": lambda t: t - 273.15, "celsius": lambda t: t}


def configure(settings):
    field, scale = settings.pop("field", None), settings.pop("from", "fahrenheit")
    repeat = settings.pop("repeat", 1)
    if not isinstance(field, str) or scale not in TO_CELSIUS.keys() or settings:
        raise ValueError("the settings are `field`, a name, `from`: fahrenheit, kelvin or celsius, and `repeat`")
    if type(repeat) is not int or not 0 <= repeat <= 255:
        raise ValueError("`repeat` is no whole number from 0 to 255")

    def process(event):
        event = map_number(event, field, TO_CELSIUS[scale])
        # No event, one or several: here one a second (in microseconds).
        return [replace(event, time=event.time + n * 1_000_000) for n in range(repeat)]

    return process


WitWorld = transform(configure)
