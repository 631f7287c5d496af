// Package aggregate makes a module of functions over the state of one window, which the agent keeps.
package aggregate

import (
	"encoding/json"
	"errors"
	"fmt"
	"module/headwater"
	"module/headwater/abi"
	"structs"
)

// Functions are an aggregate's four. State is a map or a pointer that encoding/json writes and reads.
type Functions[State any] struct {
	// Start returns the state of a window without samples.
	Start func() State
	// Add takes one more sample into the state. With an error the sample goes to the dead letters; the state has to be
	// as it was.
	Add func(State, headwater.Sample) error
	// Merge makes two partial states one.
	Merge func(a, b State) State
	// Finish returns the result of a closed window, which encoding/json writes.
	Finish func(State, headwater.Window) (any, error)
}

// functions are the four over bytes, as the agent has them.
type functions struct {
	update func(state []byte, samples []headwater.Sample) ([]byte, []abi.Rejection, error)
	merge  func(a, b []byte) ([]byte, error)
	finish func(state []byte, window headwater.Window) ([]byte, error)
}

var (
	configure func(*headwater.Settings) functions
	all       functions
)

// Of exports the aggregate: call it from `init`. It gets the function from the settings to the four; settings that nobody
// asks for are refused.
func Of[State any](of func(settings *headwater.Settings) Functions[State]) {
	configure = func(settings *headwater.Settings) functions { return bytewise(of(settings)) }
}

func bytewise[State any](of Functions[State]) functions {
	read := func(bytes []byte) (State, error) {
		state := of.Start()
		if len(bytes) == 0 {
			return state, nil
		}
		err := headwater.Shallow(bytes)
		if err == nil {
			err = json.Unmarshal(bytes, &state)
		}
		if err != nil {
			err = fmt.Errorf("failed to read the state: %w", err)
		}
		return state, err
	}
	return functions{
		update: func(bytes []byte, samples []headwater.Sample) ([]byte, []abi.Rejection, error) {
			state, err := read(bytes)
			if err != nil {
				return nil, nil, err
			}
			rejected := abi.Sift(samples, func(sample *headwater.Sample) error { return of.Add(state, *sample) })
			bytes, err = json.Marshal(state)
			return bytes, rejected, err
		},
		merge: func(a, b []byte) ([]byte, error) {
			one, err := read(a)
			if err != nil {
				return nil, err
			}
			other, err := read(b)
			if err != nil {
				return nil, err
			}
			return json.Marshal(of.Merge(one, other))
		},
		finish: func(bytes []byte, window headwater.Window) ([]byte, error) {
			state, err := read(bytes)
			if err != nil {
				return nil, err
			}
			result, err := of.Finish(state, window)
			if err != nil {
				return nil, err
			}
			return json.Marshal(result)
		},
	}
}

type sample struct {
	_       structs.HostLayout
	time    uint64
	payload abi.List
}

type group struct {
	_          structs.HostLayout
	key        abi.List
	start, end uint64
	state      abi.List
	samples    abi.List
}

type updated struct {
	_        structs.HostLayout
	state    abi.List
	rejected abi.List
}

type closed struct {
	_           structs.HostLayout
	key         abi.List
	start, end  uint64
	state       abi.List
	count, late uint64
	revision    uint32
	_           uint32
}

//go:wasmexport init
func start(config, bytes uint32) uint32 {
	settings := abi.Text(abi.List{At: config, Count: bytes})
	abi.Taken()
	return abi.Answered(headwater.Configure(settings, func(settings *headwater.Settings) {
		if configure == nil {
			settings.Fault(errors.New("there is no aggregate in the module: call aggregate.Of in `func init()`"))
			return
		}
		all = configure(settings)
	}))
}

//go:wasmexport update
func update(at, count uint32) uint32 {
	type input struct {
		state   []byte
		samples []headwater.Sample
	}
	given := abi.Read[group](abi.List{At: at, Count: count})
	inputs := make([]input, len(given))
	for n, it := range given {
		inputs[n].state = abi.Read[byte](it.state)
		for _, sample := range abi.Read[sample](it.samples) {
			inputs[n].samples = append(inputs[n].samples, headwater.Sample{
				Time: sample.time, Payload: abi.Read[byte](sample.payload),
			})
		}
	}
	abi.Taken()
	made := make([]updated, len(inputs))
	err := abi.Try(func() error {
		for n, it := range inputs {
			state, rejected, err := all.update(it.state, it.samples)
			if err != nil {
				return err
			}
			made[n] = updated{state: abi.Keep(state), rejected: abi.Keep(rejected)}
		}
		return nil
	})
	return abi.Answered(err, abi.Keep(made))
}

//go:wasmexport merge
func merge(a, aBytes, b, bBytes uint32) uint32 {
	one, other := abi.Read[byte](abi.List{At: a, Count: aBytes}), abi.Read[byte](abi.List{At: b, Count: bBytes})
	abi.Taken()
	var state []byte
	err := abi.Try(func() (err error) {
		state, err = all.merge(one, other)
		return err
	})
	return abi.Answered(err, abi.Keep(state))
}

//go:wasmexport finish
func finish(at, count uint32) uint32 {
	given := abi.Read[closed](abi.List{At: at, Count: count})
	states, windows := make([][]byte, len(given)), make([]headwater.Window, len(given))
	for n, it := range given {
		states[n] = abi.Read[byte](it.state)
		windows[n] = headwater.Window{
			Key: abi.Text(it.key), Start: it.start, End: it.end, Count: it.count, Late: it.late, Revision: it.revision,
		}
	}
	abi.Taken()
	made := make([]abi.List, len(windows))
	err := abi.Try(func() error {
		for n, window := range windows {
			result, err := all.finish(states[n], window)
			if err != nil {
				return err
			}
			made[n] = abi.Keep(result)
		}
		return nil
	})
	return abi.Answered(err, abi.Keep(made))
}

//go:wasmexport cabi_post_init
func started(uint32) { abi.Release() }

//go:wasmexport cabi_post_update
func finishedUpdate(uint32) { abi.Release() }

//go:wasmexport cabi_post_merge
func finishedMerge(uint32) { abi.Release() }

//go:wasmexport cabi_post_finish
func finishedFinish(uint32) { abi.Release() }
