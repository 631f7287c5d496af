import { mapNumber, transform } from "./headwater.js";

const toCelsius: Record<string, (degrees: number) => number> = {
  fahrenheit: (degrees) => (degrees - 32) / 1.8,
  kelvin: (degrees) => degrees - 273.15,
  celsius: (degrees) => degrees,
};

const isByte = (value: unknown): value is number => Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 255;

export const { init, process } = transform(({ field, from = "fahrenheit", repeat = 1, ...others }) => {
  if (typeof field !== "string") throw new Error("`field` is no text: name the field");
  if (!Object.hasOwn(toCelsius, from as string)) throw new Error("`from` is none of fahrenheit, kelvin, celsius");
  for (const other in others) throw new Error(`\`${other}\` is unknown`);
  if (!isByte(repeat)) throw new Error("`repeat` is no whole number from 0 to 255");
  return (event) => {
    const made = mapNumber(event, field, toCelsius[from as string]);
    // No event, one or several: here one a second (in microseconds).
    return Array.from({ length: repeat }, (_, n) => ({ ...made, time: event.time + n * 1_000_000 }));
  };
});
