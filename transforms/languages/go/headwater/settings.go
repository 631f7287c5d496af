package headwater

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Settings are the module's: `settings = { … }` in the pipeline. A setting that is missing, of another type, or not
// asked for becomes a fault of the configuration, which the operator sees.
type Settings struct {
	members map[string]json.RawMessage
	faults  []error
}

// Text returns the setting of that name, a text that has to be there.
func (s *Settings) Text(name string) string {
	var text string
	s.read(name, "text", &text)
	return text
}

// TextOr returns the setting of that name, a text, or the default if there is none.
func (s *Settings) TextOr(name, otherwise string) string {
	if _, there := s.members[name]; !there {
		return otherwise
	}
	return s.Text(name)
}

// Choice returns the index of a text among the choices, of which the first is the default.
func (s *Settings) Choice(name string, choices ...string) int {
	number := slices.Index(choices, s.TextOr(name, choices[0]))
	if number < 0 {
		s.Fault(fmt.Errorf("`%s` is none of %s", name, strings.Join(choices, ", ")))
	}
	return max(number, 0)
}

// WholeOr returns the setting of that name, a whole number from 0 to most, or the default if there is none.
func (s *Settings) WholeOr(name string, otherwise, most uint64) uint64 {
	if _, there := s.members[name]; !there {
		return otherwise
	}
	var whole uint64
	s.read(name, "whole number", &whole)
	if whole > most {
		s.Fault(fmt.Errorf("`%s` is %d: it is at most %d", name, whole, most))
	}
	return whole
}

// Texts returns the setting of that name, a list of texts that has to be there, with at least one in it and none twice.
func (s *Settings) Texts(name string) []string {
	var texts []*string
	s.read(name, "list of texts", &texts)
	list := make([]string, 0, len(texts))
	for _, text := range texts {
		if text == nil {
			s.Fault(fmt.Errorf("`%s` is no list of texts", name))
			return nil
		}
		if slices.Contains(list, *text) {
			s.Fault(fmt.Errorf("`%s` has `%s` twice", name, *text))
		}
		list = append(list, *text)
	}
	if len(list) == 0 {
		s.Fault(fmt.Errorf("`%s` is empty: name at least one", name))
	}
	return list
}

// Fault adds a fault of the configuration: the settings are refused.
func (s *Settings) Fault(fault error) { s.faults = append(s.faults, fault) }

func (s *Settings) read(name, kind string, into any) {
	value, there := s.members[name]
	delete(s.members, name)
	if !there {
		s.Fault(fmt.Errorf("`%s` is missing", name))
	} else if bytes.Equal(value, []byte("null")) || json.Unmarshal(value, into) != nil {
		s.Fault(fmt.Errorf("`%s` is no %s: %s", name, kind, value))
	}
}

// Configure reads the settings, and refuses them if there are faults or anything is left.
func Configure(config string, configure func(*Settings)) error {
	if err := Shallow([]byte(config)); err != nil {
		return err
	}
	settings := Settings{}
	if err := json.Unmarshal([]byte(config), &settings.members); err != nil || settings.members == nil {
		return fmt.Errorf("the settings are no JSON object: %.40s", config)
	}
	configure(&settings)
	left := make([]string, 0, len(settings.members))
	for name := range settings.members {
		left = append(left, name)
	}
	slices.Sort(left)
	for _, name := range left {
		settings.Fault(fmt.Errorf("`%s` is unknown", name))
	}
	return errors.Join(settings.faults...)
}
