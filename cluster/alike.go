package cluster

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// Settings are what must be alike in all processes of a cluster beside the program and the job's graph, by name: where input comes from
// and output goes, how fast. An empty value is none. Values stay in the process; others see fingerprints.
type Settings map[string]string

// fingerprints are what others see, by name: with the cluster's secret for a key, so that whoever listens cannot try values.
func (s Settings) fingerprints(secret []byte) map[string]string {
	prints := make(map[string]string, len(s))
	for name, value := range s { //lint:sorted each by itself
		if value != "" {
			h := hmac.New(sha256.New, secret)
			h.Write([]byte(value))
			prints[name] = string(h.Sum(nil))
		}
	}
	return prints
}

// differing lists the names of the settings that are not alike, in order.
func differing(a, b map[string]string) []string {
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

// otherGraph says that one has another graph than another, and where the two differ first.
func otherGraph(one, shape, another, other string) string {
	a, b := strings.Split(strings.TrimSuffix(shape, "\n"), "\n"), strings.Split(strings.TrimSuffix(other, "\n"), "\n")
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
	return fmt.Sprintf("%s has [%s] where %s has [%s] (the job, its operators, their names, and how many tasks each has must stay the same)",
		one, line(a, i), another, line(b, i))
}
