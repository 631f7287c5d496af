package main

import (
	"errors"
	"module/headwater"
	"module/headwater/transform"
)

var toCelsius = map[string]func(float64) float64{
	"fahrenheit": func(degrees float64) float64 { return (degrees - 32) / 1.8 },
	"kelvin":     func(degrees float64) float64 { return degrees - 273.15 },
	"celsius":    func(degrees float64) float64 { return degrees },
}

func init() {
	transform.Of(func(settings *headwater.Settings) transform.Function {
		field, change := settings.Text("field"), toCelsius[settings.TextOr("from", "fahrenheit")]
		if change == nil {
			settings.Fault(errors.New("`from` is none of fahrenheit, kelvin, celsius"))
		}
		return func(event headwater.Event) ([]headwater.Event, error) { return event.MapNumber(field, change) }
	})
}

func main() {}
