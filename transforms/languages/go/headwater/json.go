package headwater

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// MapNumber replaces the number in a field of the payload; all else stays as it is, byte for byte. It is an error, and
// the event stays as it was, where the field is missing, there twice or no number, or the new number is not finite.
func (e *Event) MapNumber(field string, change func(float64) float64) error {
	at, err := find(e.Payload, field)
	if err != nil {
		return err
	}
	value, err := at.number(e.Payload, field)
	if err != nil {
		return err
	}
	return e.set(at, field, change(value))
}

// SetNumber sets the number in a field of the payload, which is added if it is not there; all else stays as it is,
// byte for byte. It is an error, and the event stays as it was, where the field is there twice or the number is not
// finite.
func (e *Event) SetNumber(field string, value float64) error {
	at, err := find(e.Payload, field)
	if err != nil {
		return err
	}
	return e.set(at, field, value)
}

// Number returns the number in a field of the payload. It is an error where the payload is no JSON object, or the field
// is missing, there twice or no finite number.
func (e Event) Number(field string) (float64, error) {
	at, err := find(e.Payload, field)
	if err != nil {
		return 0, err
	}
	return at.number(e.Payload, field)
}

// place is the place of a field's value in a payload, or the place where it would be.
type place struct {
	there, first bool
	start, end   int
}

func find(payload []byte, field string) (place, error) {
	at := place{first: true}
	found := 0
	err := members(payload, func(name string, from, to int) {
		at.first = false
		if name == field {
			at.there, at.start, at.end = true, from, to
			found++
		}
	})
	if err == nil && found > 1 {
		err = fmt.Errorf("field `%s` is there twice", field)
	}
	if !at.there {
		at.start = bytes.LastIndexByte(payload, '}')
		at.end = at.start
	}
	return at, err
}

func (at place) number(payload []byte, field string) (float64, error) {
	if !at.there {
		return 0, fmt.Errorf("field `%s` is missing", field)
	}
	value, isNumber := number(payload[at.start:at.end])
	if !isNumber {
		return 0, fmt.Errorf("field `%s` is not a number: %.40s", field, payload[at.start:at.end])
	}
	return value, nil
}

func (e *Event) set(at place, field string, value float64) error {
	if math.IsInf(value, 0) || math.IsNaN(value) {
		return fmt.Errorf("field `%s` would become %v", field, value)
	}
	payload := make([]byte, 0, len(e.Payload)+len(field)+32)
	payload = append(payload, e.Payload[:at.start]...)
	if !at.there {
		name, err := json.Marshal(field)
		if err != nil {
			return err
		}
		if !at.first {
			payload = append(payload, ',')
		}
		payload = append(append(payload, name...), ':')
	}
	payload = strconv.AppendFloat(payload, value, 'g', -1, 64)
	e.Payload = append(payload, e.Payload[at.end:]...)
	return nil
}

// Numbers returns the finite numbers in the fields of the payload, without those that are missing or no number. It is
// an error where the payload is no JSON object.
func (s Sample) Numbers(fields []string) (map[string]float64, error) {
	numbers := make(map[string]float64, len(fields))
	err := members(s.Payload, func(name string, from, to int) {
		for _, field := range fields {
			if name != field {
				continue
			}
			if value, isNumber := number(s.Payload[from:to]); isNumber {
				numbers[field] = value
			}
		}
	})
	return numbers, err
}

func number(value []byte) (float64, bool) {
	if value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, false
	}
	number, err := strconv.ParseFloat(string(value), 64)
	return number, err == nil
}

// The parser calls itself at each level, and the stack is the agent's to bound.
const nestingMax = 200

// Shallow returns an error if encoding/json would need more stack than there is.
func Shallow(written []byte) error {
	depth, inText := 0, false
	for at := 0; at < len(written); at++ {
		switch it := written[at]; {
		case it == '"':
			inText = !inText
		case inText && it == '\\':
			at++
		case inText:
		case it == '{' || it == '[':
			depth++
		case it == '}' || it == ']':
			depth--
		}
		if depth > nestingMax {
			return fmt.Errorf("nested more than %d levels deep", nestingMax)
		}
	}
	return nil
}

// members checks the payload as a whole, and gives the places of its members' values.
func members(payload []byte, each func(name string, start, end int)) error {
	if !utf8.Valid(payload) {
		return errors.New("not UTF-8")
	}
	if err := Shallow(payload); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	if !json.Valid(payload) {
		return fmt.Errorf("not a JSON object: %.40s", payload)
	}
	at := blank(payload, 0)
	if payload[at] != '{' {
		return fmt.Errorf("not a JSON object: %.40s", payload)
	}
	for at = blank(payload, at+1); payload[at] != '}'; {
		end := quoted(payload, at)
		name := text(payload[at:end])
		start := blank(payload, blank(payload, end)+1)
		end = ending(payload, start)
		each(name, start, end)
		if at = blank(payload, end); payload[at] == ',' {
			at = blank(payload, at+1)
		}
	}
	return nil
}

// The functions below take valid JSON.

func text(quoted []byte) string {
	for _, it := range quoted {
		if it == '\\' {
			var text string
			_ = json.Unmarshal(quoted, &text)
			return text
		}
	}
	return string(quoted[1 : len(quoted)-1])
}

func blank(payload []byte, at int) int {
	for at < len(payload) && payload[at] <= ' ' {
		at++
	}
	return at
}

func quoted(payload []byte, at int) int {
	for at++; payload[at] != '"'; at++ {
		if payload[at] == '\\' {
			at++
		}
	}
	return at + 1
}

func ending(payload []byte, at int) int {
	for depth := 0; ; {
		switch payload[at] {
		case '"':
			at = quoted(payload, at)
		case '{', '[':
			depth++
			at++
			continue
		case '}', ']':
			depth--
			at++
		default:
			for at < len(payload) && payload[at] > ' ' && payload[at] != ',' && payload[at] != ':' &&
				payload[at] != '}' && payload[at] != ']' {
				at++
			}
		}
		if depth == 0 {
			return at
		}
		for payload[at] <= ' ' || payload[at] == ',' || payload[at] == ':' {
			at++
		}
	}
}
