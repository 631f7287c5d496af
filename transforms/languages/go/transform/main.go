package main

import "module/headwater/transform"

func init() { transform.Of(celsius) }

func celsius(settings *transform.Settings) transform.Function {
	field, from := settings.Text("field"), settings.Choice("from", "fahrenheit", "kelvin", "celsius")
	return func(event transform.Event) ([]transform.Event, error) {
		return event.MapNumber(field, func(t float64) float64 {
			return [...]float64{(t - 32) / 1.8, t - 273.15, t}[from]
		})
	}
}

func main() {}
