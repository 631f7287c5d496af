from headwater import map_number, transform

TO_CELSIUS = {"fahrenheit": lambda t: (t - 32) / 1.8, "kelvin": lambda t: t - 273.15, "celsius": lambda t: t}


def configure(settings):
    field, scale = settings.pop("field", None), settings.pop("from", "fahrenheit")
    if not isinstance(field, str) or scale not in TO_CELSIUS.keys() or settings:
        raise ValueError("the settings are `field`, a name, and `from`: fahrenheit, kelvin or celsius")
    return lambda event: map_number(event, field, TO_CELSIUS[scale])


WitWorld = transform(configure)
