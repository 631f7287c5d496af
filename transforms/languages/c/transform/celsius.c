// A temperature in a field of the payload, to degrees Celsius.
#include "headwater.h"

static const char *field;
static int from;
static unsigned repeat;

void init(void) {
    field = setting_text("field", NULL);
    from = setting_choice("from", "fahrenheit", "kelvin", "celsius", NULL);
    repeat = setting_whole("repeat", 1, 255);
}

void process(Event *event) {
    double t = json_number(event->payload, field);
    t = from == 0 ? (t - 32) / 1.8 : from == 1 ? t - 273.15 : t;
    event->payload = json_with_number(event->payload, field, t);
    // No event, one or several: here one a second (in microseconds).
    for (unsigned n = 0; n < repeat; n++, event->time += 1000000) emit(event);
}
