// A temperature in a field of the payload, to degrees Celsius.
import { Event, Settings, emit, transform } from "./headwater";
export * from "./headwater/transform";

let field = "", from = 0;

function init(settings: Settings): void {
  field = settings.text("field");
  from = settings.choice("from", ["fahrenheit", "kelvin", "celsius"]);
}

function process(event: Event): void {
  const t = event.number(field);
  event.setNumber(field, from == 0 ? (t - 32) / 1.8 : from == 1 ? t - 273.15 : t);
  emit(event);
}

transform(init, process);
