import { mapNumber, transform } from "./headwater.js";

const toCelsius = {
  fahrenheit: (degrees) => (degrees - 32) / 1.8,
  kelvin: (degrees) => degrees - 273.15,
  celsius: (degrees) => degrees,
};

export const { init, process } = transform(({ field, from = "fahrenheit", ...others }) => {
  if (typeof field !== "string") throw new Error("`field` is no text: name the field");
  if (!Object.hasOwn(toCelsius, from)) throw new Error("`from` is none of fahrenheit, kelvin, celsius");
  for (const other in others) throw new Error(`\`${other}\` is unknown`);
  return (event) => mapNumber(event, field, toCelsius[from]);
});
