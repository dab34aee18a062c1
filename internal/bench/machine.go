package bench

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Machine is where something was measured. What the system does not tell is empty or 0.
type Machine struct {
	CPU         string  `json:"cpu"`
	Cores       int     `json:"cores"` // that Go may use
	MemoryBytes int64   `json:"memory_bytes"`
	Go          string  `json:"go"`
	System      string  `json:"system"`
	Kernel      string  `json:"kernel"`
	Load        float64 `json:"load"` // programs that wanted to compute, in the mean of the minute before
}

// ThisMachine describes the machine. What is not in Go's runtime it reads where Linux shows it.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	m.CPU = field(shown("/proc/cpuinfo"), "model name")
	m.Kernel = strings.TrimSpace(shown("/proc/sys/kernel/osrelease"))
	number, _, _ := strings.Cut(field(shown("/proc/meminfo"), "MemTotal"), " ")
	if kib, err := strconv.ParseInt(number, 10, 64); err == nil {
		m.MemoryBytes = kib << 10
	}
	load, _, _ := strings.Cut(shown("/proc/loadavg"), " ")
	if l, err := strconv.ParseFloat(load, 64); err == nil {
		m.Load = l
	}
	return m
}

// shown is a file of the system, empty where there is none.
func shown(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(text)
}

// field finds the first line "name : value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
