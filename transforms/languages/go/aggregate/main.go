package main

import (
	"fmt"
	"math"
	"module/headwater"
	"module/headwater/aggregate"
)

type state = map[string]*summary

func init() {
	aggregate.Of(func(settings *headwater.Settings) aggregate.Functions[state] {
		fields := settings.Texts("fields")
		return aggregate.Functions[state]{
			Start: func() state { return state{} },
			// A field that is missing or no number is not counted; a sample with none is refused.
			Add: func(all state, sample headwater.Sample) error {
				numbers, err := sample.Numbers(fields)
				if err == nil && len(numbers) == 0 {
					err = fmt.Errorf("no number in any of %q", fields)
				}
				for field, number := range numbers {
					if all[field] == nil {
						all[field] = &summary{Mean: number, Min: number, Max: number}
					}
					all[field].add(number)
				}
				return err
			},
			Merge: func(a, b state) state {
				for field, other := range b {
					if a[field] == nil {
						a[field] = other
					} else {
						a[field].merge(other)
					}
				}
				return a
			},
			Finish: func(all state, _ headwater.Window) (any, error) {
				reports := make(map[string]report, len(all))
				for field, it := range all {
					reports[field] = report{it.Count, it.Mean, it.Min, it.Max, math.Sqrt(it.Deviations / float64(it.Count))}
				}
				return reports, nil
			},
		}
	})
}

type summary struct {
	Count          uint64
	Mean, Min, Max float64
	// Deviations is the sum of the squared differences from the mean.
	Deviations float64
}

type report struct {
	Count  uint64  `json:"count"`
	Mean   float64 `json:"mean"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Stddev float64 `json:"stddev"`
}

// Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
func (s *summary) add(number float64) {
	before := number - s.Mean
	s.Count++
	s.Mean += before / float64(s.Count)
	s.Deviations += before * (number - s.Mean)
	s.Min, s.Max = min(s.Min, number), max(s.Max, number)
}

// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
func (s *summary) merge(other *summary) {
	count := s.Count + other.Count
	share := float64(other.Count) / float64(count)
	apart := other.Mean - s.Mean
	s.Deviations += other.Deviations + apart*apart*float64(s.Count)*share
	s.Mean += apart * share
	s.Count = count
	s.Min, s.Max = min(s.Min, other.Min), max(s.Max, other.Max)
}

func main() {}
