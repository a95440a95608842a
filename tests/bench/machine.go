//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Machine is where a report comes from.
type Machine struct {
	Date       string `json:"date"`
	CPU        string `json:"cpu"`
	Processors int    `json:"processors"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Congestion string `json:"congestion_control"`
	Load       string `json:"load_at_start"` // one, five and fifteen minutes
	Pasta      string `json:"pasta,omitempty"`
}

func describeMachine(congestion string) Machine {
	m := Machine{
		Date:       time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		CPU:        cpuModel(),
		Processors: runtime.NumCPU(),
		Go:         runtime.Version(),
		Congestion: congestion,
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	if version, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "passt").Output(); err == nil {
		m.Pasta = string(version)
	}
	return m
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

func (m Machine) String() string {
	return fmt.Sprintf("%s: %s, %d processors, Linux %s, %s, congestion control %s, load at start %s",
		m.Date, m.CPU, m.Processors, m.Kernel, m.Go, m.Congestion, m.Load)
}
