// Package abi is the canonical ABI of wit/headwater.wit by hand: the layout in memory, and the lifetimes.
//
// Values that the agent hands over are allocated by realloc and read in place; values that are handed back stay alive
// until the agent has read them.
package abi

import (
	"fmt"
	"runtime/debug"
	"structs"
	"unsafe"
)

// List is a list or a text.
type List struct {
	_     structs.HostLayout
	At    uint32
	Count uint32
}

// Rejection is the contract's record.
type Rejection struct {
	_      structs.HostLayout
	Index  uint32
	Reason List
}

// Answer is a result: of nothing, of a list, or of a record of two lists.
type Answer struct {
	_      structs.HostLayout
	Failed uint32
	Lists  [2]List
}

var (
	given [][]uint64
	kept  []any
)

// Below the 64 MiB that the agent gives by default, so that garbage is collected before it would be too much.
const memoryBytesMax = 48 << 20

func init() { debug.SetMemoryLimit(memoryBytesMax) }

// realloc is where the agent puts what it hands over; it never asks for anything larger or smaller later.
//
//go:wasmexport cabi_realloc
func realloc(_, _, _, bytes uint32) uint32 {
	block := make([]uint64, (bytes+7)/8)
	given = append(given, block)
	return address(unsafe.Pointer(unsafe.SliceData(block)))
}

// Taken is called once the views exist, which keep their memory alive.
func Taken() { given = nil }

// Read returns a view of a list that was handed over.
func Read[T any](list List) []T {
	if list.Count == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(uintptr(list.At))), list.Count)
}

// Text returns a view of a text that was handed over.
func Text(list List) string {
	if list.Count == 0 {
		return ""
	}
	return unsafe.String((*byte)(unsafe.Pointer(uintptr(list.At))), list.Count)
}

// Keep hands a list back.
func Keep[T any](list []T) List {
	if len(list) == 0 {
		return List{At: 8}
	}
	kept = append(kept, list)
	return List{At: address(unsafe.Pointer(unsafe.SliceData(list))), Count: uint32(len(list))}
}

// KeepText hands a text back.
func KeepText(text string) List {
	if text == "" {
		return List{At: 8}
	}
	kept = append(kept, text)
	return List{At: address(unsafe.Pointer(unsafe.StringData(text))), Count: uint32(len(text))}
}

// Answered hands a result back.
func Answered(err error, lists ...List) uint32 {
	answer := new(Answer)
	if err != nil {
		answer.Failed = 1
		answer.Lists[0] = KeepText(err.Error())
	} else {
		copy(answer.Lists[:], lists)
	}
	kept = append(kept, answer)
	return address(unsafe.Pointer(answer))
}

// Release forgets the values that were handed back.
func Release() {
	clear(kept)
	kept = kept[:0]
}

// Sift calls the function with each input, and returns the rejections.
func Sift[T any](inputs []T, each func(*T) error) []Rejection {
	var rejected []Rejection
	for index := range inputs {
		if err := Try(func() error { return each(&inputs[index]) }); err != nil {
			rejected = append(rejected, Rejection{Index: uint32(index), Reason: KeepText(err.Error())})
		}
	}
	return rejected
}

// Try makes an error of a panic, so that it costs the input at hand alone.
func Try(call func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	return call()
}

func address(pointer unsafe.Pointer) uint32 { return uint32(uintptr(pointer)) }
