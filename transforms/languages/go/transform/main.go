package main

import "module/headwater/transform"

func init() { transform.Of(celsius) }

func celsius(settings *transform.Settings) transform.Function {
	field, from := settings.Text("field"), settings.Choice("from", "fahrenheit", "kelvin", "celsius")
	repeat := settings.WholeOr("repeat", 1, 255)
	return func(event transform.Event) ([]transform.Event, error) {
		err := event.MapNumber(field, func(t float64) float64 {
			return [...]float64{(t - 32) / 1.8, t - 273.15, t}[from]
		})
		// No event, one or several: here one a second (in microseconds).
		events := make([]transform.Event, 0, repeat)
		for range repeat {
			events = append(events, event)
			event.Time += 1_000_000
		}
		return events, err
	}
}

func main() {}
