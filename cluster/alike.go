package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Settings are what must be alike in all processes of a cluster beside the program and the job's graph, by name: where input comes from
// and output goes, how fast. An empty value is none. Values stay in the process; others see fingerprints.
type Settings map[string]string

// fingerprints are what others see. The names are not part of them.
func (s Settings) fingerprints() map[string]uint64 {
	prints := make(map[string]uint64, len(s))
	for name, value := range s { //lint:sorted each by itself
		if value != "" {
			prints[name] = xxhash.Sum64String(value)
		}
	}
	return prints
}

// differing lists the names of the settings that are not alike, in order.
func differing(a, b map[string]uint64) []string {
	var names []string
	for name, print := range a { //lint:sorted below
		if other, has := b[name]; !has || other != print {
			names = append(names, name)
		}
	}
	for name := range b { //lint:sorted below
		if _, has := a[name]; !has {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// otherGraph says that something is of another graph than the job that was asked for, and where the two differ first.
func otherGraph(whose, shape, here string) string {
	a, b := strings.Split(strings.TrimSuffix(shape, "\n"), "\n"), strings.Split(strings.TrimSuffix(here, "\n"), "\n")
	line := func(lines []string, i int) string {
		if i < len(lines) {
			return strings.TrimSpace(lines[i])
		}
		return "nothing more"
	}
	i := 0
	for i < max(len(a), len(b)) && line(a, i) == line(b, i) {
		i++
	}
	return fmt.Sprintf("%s has [%s] where this process has [%s] (the job, its operators, their names and the parallelism must stay the same)",
		whose, line(a, i), line(b, i))
}
