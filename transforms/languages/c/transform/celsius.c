// A temperature in a field of the payload, to degrees Celsius.
#include "headwater.h"

static const char *field;
static int from;

void init(void) {
    field = setting_text("field", NULL);
    from = setting_choice("from", "fahrenheit", "kelvin", "celsius", NULL);
}

void process(Event *event) {
    double t = json_number(event->payload, field);
    t = from == 0 ? (t - 32) / 1.8 : from == 1 ? t - 273.15 : t;
    event->payload = json_with_number(event->payload, field, t);
    emit(event);
}
