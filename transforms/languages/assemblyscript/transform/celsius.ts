// A temperature in a field of the payload, to degrees Celsius.
import { Event, Settings, emit, transform } from "./headwater";
export * from "./headwater/transform";

let field = "", from = 0, repeat: u32 = 1;

function init(settings: Settings): void {
  field = settings.text("field");
  from = settings.choice("from", ["fahrenheit", "kelvin", "celsius"]);
  repeat = settings.whole("repeat", 1, 255);
}

function process(event: Event): void {
  const t = event.number(field);
  event.setNumber(field, from == 0 ? (t - 32) / 1.8 : from == 1 ? t - 273.15 : t);
  // No event, one or several: here one a second (in microseconds).
  for (let n: u32 = 0; n < repeat; n++, event.time += 1000000) emit(event);
}

transform(init, process);
