// Package headwater is the SDK for Headwater modules in Go: the calls of the contract, which come in batches, become one
// function per event. An event that cannot be used is an error: it goes to the dead letters with the error's text.
//
// The agent may throw an instance away at any moment: data that must last belongs in an aggregate's state. There is no
// network and no file, the clock stands still and random numbers are the same in each instance, so that a
// recomputation gives the same result.
package headwater

import "unsafe"

// Event is one event of a transform.
type Event struct {
	// Topic is the MQTT topic it came from.
	Topic string
	// Key is the key that it belongs to: order, windows and state are kept per key.
	Key string
	// Time is the event time, in microseconds since the Unix epoch, UTC.
	Time uint64
	// Payload is the content: JSON, unless the pipeline says otherwise. It is to be replaced, not written to.
	Payload []byte
}

// Sample is an event of one window.
type Sample struct {
	// Time is the event time, in microseconds since the Unix epoch, UTC.
	Time uint64
	// Payload is the content, as of an event.
	Payload []byte
}

// Window is a closed window, half open: Start belongs to it, End does not.
type Window struct {
	// Key is the key that its samples belong to.
	Key string
	// Start and End are in microseconds since the Unix epoch, UTC.
	Start, End uint64
	// Count is the number of samples used, Late the number of them that came after the window had first closed.
	Count, Late uint64
	// Revision is 0 the first time, then one more each time late samples change the result.
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
