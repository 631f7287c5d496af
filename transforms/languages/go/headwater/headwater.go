// Package headwater is what the author of a Headwater module uses: the calls of the contract, which come in batches,
// become one function per event. A reading that cannot be used is an error: it goes to the dead letters with its text.
//
// The agent may throw an instance away at any moment: what must last belongs in an aggregate's state. There is no
// network and no file, the clock stands still and random numbers are the same in each instance, so that a
// recomputation gives the same result.
package headwater

import "unsafe"

// Event is what passes a transform.
type Event struct {
	// Topic is the MQTT topic it came from.
	Topic string
	// Key is what it belongs to: order, windows and state are kept per key.
	Key string
	// Time is event time, in microseconds since the Unix epoch.
	Time uint64
	// Payload is JSON, unless the pipeline says otherwise. To be replaced, not written to.
	Payload []byte
}

// Sample is an event of one window.
type Sample struct {
	Time    uint64
	Payload []byte
}

// Window is a closed window, half open: Start belongs to it, End does not.
type Window struct {
	Key        string
	Start, End uint64
	// Count is how many readings were used, Late how many of them came after the window had first closed.
	Count, Late uint64
	// Revision is 0 the first time, then one more with each time late readings change the result.
	Revision uint32
}

//go:wasmimport headwater:module/logging@0.1.0 log
func log(level uint32, message unsafe.Pointer, bytes uint32)

// Debug writes a line for whoever takes the module apart; hidden at the agent's usual level.
func Debug(message string) { write(0, message) }

// Info writes a line for the operator, in normal running.
func Info(message string) { write(1, message) }

// Warn writes a line for the operator: something to look into.
func Warn(message string) { write(2, message) }

// Error writes a line for the operator: something to repair.
func Error(message string) { write(3, message) }

func write(level uint32, message string) {
	log(level, unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}
