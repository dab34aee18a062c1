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

// processorTime is how the time of all processors has gone since the system started, in ticks (Linux, proc(5), /proc/stat).
type processorTime struct {
	all, idle float64
	stolen    float64 // that the host of a virtual machine took for others
}

// processors reads it where Linux shows it; the zero value elsewhere.
func processors() (t processorTime) {
	line, _, _ := strings.Cut(shown("/proc/stat"), "\n")
	for i, text := range strings.Fields(line) {
		ticks, err := strconv.ParseFloat(text, 64)
		if i == 0 || i > 8 || err != nil {
			continue // its name; what is counted twice
		}
		t.all += ticks
		switch i {
		case 4, 5: // waiting for a disk, too
			t.idle += ticks
		case 8:
			t.stolen += ticks
		}
	}
	return t
}

// since is how much of the time since before the processors were busy, and how much was stolen, in percent; -1 if nobody knows.
func (t processorTime) since(before processorTime) (busy, stolen float64) {
	all := t.all - before.all
	if all <= 0 {
		return -1, -1
	}
	stolen = 100 * (t.stolen - before.stolen) / all
	return 100 - 100*(t.idle-before.idle)/all - stolen, stolen
}
