// Package transform makes a module of a function for one event.
package transform

import (
	"errors"
	"module/headwater"
	"module/headwater/abi"
	"structs"
)

type (
	// Event is one event of a transform.
	Event = headwater.Event
	// Settings are the module's: `settings = { … }` in the pipeline.
	Settings = headwater.Settings
)

// Function returns the events that one event becomes: none (nil) drops it, several split it. With an error the event
// gives nothing and goes to the dead letters, with the error's text as the reason.
type Function = func(headwater.Event) ([]headwater.Event, error)

var (
	configure func(*headwater.Settings) Function
	function  Function
)

// Of exports the transform: call it from `init`. It gets the function from the settings to the function for one event;
// settings that nobody asks for are refused.
func Of(of func(settings *headwater.Settings) Function) { configure = of }

type event struct {
	_       structs.HostLayout
	topic   abi.List
	key     abi.List
	time    uint64
	payload abi.List
}

//go:wasmexport init
func start(config, bytes uint32) uint32 {
	settings := abi.Text(abi.List{At: config, Count: bytes})
	abi.Taken()
	return abi.Answered(headwater.Configure(settings, func(settings *headwater.Settings) {
		if configure == nil {
			settings.Fault(errors.New("there is no transform in the module: call transform.Of in `func init()`"))
			return
		}
		function = configure(settings)
	}))
}

//go:wasmexport process
func process(at, count uint32) uint32 {
	given := abi.Read[event](abi.List{At: at, Count: count})
	inputs := make([]headwater.Event, len(given))
	for n, it := range given {
		inputs[n] = headwater.Event{
			Topic: abi.Text(it.topic), Key: abi.Text(it.key), Time: it.time, Payload: abi.Read[byte](it.payload),
		}
	}
	abi.Taken()
	made := make([]event, 0, len(inputs))
	rejected := abi.Sift(inputs, func(input *headwater.Event) error {
		events, err := function(*input)
		if err != nil {
			return err
		}
		for _, it := range events {
			made = append(made, event{
				topic: abi.KeepText(it.Topic), key: abi.KeepText(it.Key), time: it.Time, payload: abi.Keep(it.Payload),
			})
		}
		return nil
	})
	return abi.Answered(nil, abi.Keep(made), abi.Keep(rejected))
}

//go:wasmexport cabi_post_init
func started(uint32) { abi.Release() }

//go:wasmexport cabi_post_process
func processed(uint32) { abi.Release() }
